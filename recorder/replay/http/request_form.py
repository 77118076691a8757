"""Requests in one form that does not depend on the wire format, so that two requests can be compared and shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.messages import BaseMessage, HumanMessage, from_any, messages_from
from recorder.messages.identity import content_key
from recorder.storage.reader import RecordedRun
from recorder.wire.anthropic import request as anthropic_request
from recorder.wire.openai import request as openai_request
from recorder.wire.openai.responses_input import input_items
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.recorded_run import ANTHROPIC, CHAT, RESPONSES
from recorder.wire.request_hash import CONTENT_KEYS, comparable_fields

#: `system` (text), `messages` (a dict for each, without the details of a format), and the options by name.
Form = dict[str, Any]

#: What LangChain's description of a model has beside the options of the request.
_OF_LANGCHAIN = frozenset(
    ("_type", "model_name", "streaming", "max_retries", "default_request_timeout", "model_kwargs")
)
#: Roles whose consecutive messages are merged: some formats merge them, others do not.
_MERGED = ("user", "system")


def form_of_body(body: Mapping[str, Any]) -> Form:
    """The form of a request, from its JSON body or from the arguments of the SDK's `create`."""
    fields = comparable_fields(body)
    options = _options(fields)
    try:
        return _form(_messages_of(fields), options)
    except ConfigError:  # messages of an unknown shape
        return {**options, "messages": fields.get("messages")}


def form_of_run(run: RecordedRun, path: Sequence[BaseMessage], wire: str) -> Form:
    """The form of a recorded run's request, its messages as this wire format writes them."""
    options = _options(comparable_fields(run.request or {}))
    if run.request_model is not None:
        options.setdefault("model", run.request_model)
    return _form(_as_sent(path, wire, str(options.get("model") or "")), options)


def _options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without the messages, and without what only LangChain's description of a model has."""
    left_out = CONTENT_KEYS | _OF_LANGCHAIN if "_type" in fields else CONTENT_KEYS
    return {key: value for key, value in fields.items() if key not in left_out}


def _messages_of(fields: Mapping[str, Any]) -> list[BaseMessage]:
    if "messages" not in fields and "prompt" not in fields and "input" in fields:
        return responses_messages(fields)
    found = [from_any(("system", fields["system"]))] if fields.get("system") else []
    if (prompt := fields.get("prompt")) is not None and "messages" not in fields:
        prompts = prompt if isinstance(prompt, list) else [prompt]
        return [*found, *(HumanMessage(str(each)) for each in prompts)]
    return [*found, *messages_from(list(fields.get("messages") or ()))]


def _as_sent(path: Sequence[BaseMessage], wire: str, model: str) -> list[BaseMessage]:
    """The messages with images, files and other blocks as the format writes them; text is the same in all formats."""
    if all(isinstance(message.content, str) for message in path):
        return list(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if wire == CHAT:
                return messages_from(openai_request.request_messages(path))
            if wire == RESPONSES:
                return responses_messages({"input": input_items(path)})
            if wire == ANTHROPIC:
                system, turns = anthropic_request.request_messages(path, model)
                return [*([from_any(("system", system))] if system else []), *messages_from(turns)]
    except (ConfigError, LookupError, TypeError):  # this format cannot express these messages
        pass
    return list(path)


def _form(messages: Iterable[BaseMessage], options: Mapping[str, Any]) -> Form:
    listed = [_message_fields(message) for message in _merged(messages)]
    form: Form = dict(options)
    if listed and listed[0]["role"] == "system":
        form["system"] = listed.pop(0).get("text", "")
    return {**form, "messages": listed}


def _merged(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    merged: list[BaseMessage] = []
    for message in messages:
        if merged and message.role in _MERGED and merged[-1].role == message.role:
            merged[-1] = from_any((message.role, [*_blocks(merged[-1]), *_blocks(message)]))
        else:
            merged.append(message)
    return merged


def _blocks(message: BaseMessage) -> list[Any]:
    return message.content if isinstance(message.content, list) else [message.content]


def _message_fields(message: BaseMessage) -> dict[str, Any]:
    """The fields that make up a message (`recorder.messages.identity`), without empty ones."""
    key = content_key(message)
    calls = [{"id": id, "name": name, "arguments": arguments} for id, name, arguments in key.calls]
    fields = {
        "role": key.role,
        "text": key.text,
        "calls": calls,
        "tool_call_id": key.tool_call_id,
        "attachments": list(key.attachments),
    }
    return {name: value for name, value in fields.items() if value}
