"""Requests in one form, so that two can be compared and shown side by side, whatever format each was made in."""

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
from recorder.wire.recorded import ANTHROPIC, CHAT
from recorder.wire.request_hash import CONTENT_KEYS, comparable_fields

#: `system` (a text), `messages` (what each is to a reader), and the options by their names.
Form = dict[str, Any]

#: Roles whose neighbours are one message: some formats take them so, others do not.
_MERGED = ("user", "system")


def asked_form(body: Mapping[str, Any]) -> Form:
    """A request by its body: the JSON that is sent, or the arguments of the SDK's `create`."""
    said = comparable_fields(body)
    options = {key: value for key, value in said.items() if key not in CONTENT_KEYS}
    try:
        return _form(_messages_of(said), options)
    except ConfigError:  # no messages that anybody knows
        return {**options, "messages": said.get("messages")}


def recorded_form(run: RecordedRun, path: Sequence[BaseMessage], wire: str) -> Form:
    """The request of a recorded run, its messages as this wire format has them."""
    options = {
        key: value for key, value in comparable_fields(run.request or {}).items() if key not in CONTENT_KEYS
    }
    if run.request_model is not None:
        options.setdefault("model", run.request_model)
    return _form(_as_sent(path, wire, str(options.get("model") or "")), options)


def _messages_of(said: Mapping[str, Any]) -> list[BaseMessage]:
    found = [from_any(("system", said["system"]))] if said.get("system") else []
    if (prompt := said.get("prompt", said.get("input"))) is not None and "messages" not in said:
        prompts = prompt if isinstance(prompt, list) else [prompt]
        return [*found, *(HumanMessage(str(each)) for each in prompts)]
    return [*found, *messages_from(list(said.get("messages") or ()))]


def _as_sent(path: Sequence[BaseMessage], wire: str, model: str) -> list[BaseMessage]:
    """Images, files and other blocks in the words of the format; text is the same in all."""
    if all(isinstance(message.content, str) for message in path):
        return list(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if wire == CHAT:
                return messages_from(openai_request.request_messages(path))
            if wire == ANTHROPIC:
                system, turns = anthropic_request.request_messages(path, model)
                return [*([from_any(("system", system))] if system else []), *messages_from(turns)]
    except (ConfigError, LookupError, TypeError):  # nothing that this format could ask
        pass
    return list(path)


def _form(messages: Iterable[BaseMessage], options: Mapping[str, Any]) -> Form:
    said = [_said(message) for message in _merged(messages)]
    form: Form = dict(options)
    if said and said[0]["role"] == "system":
        form["system"] = said.pop(0).get("text", "")
    return {**form, "messages": said}


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


def _said(message: BaseMessage) -> dict[str, Any]:
    """What a message is to a reader, see `recorder.messages.identity`; without what is empty."""
    key = content_key(message)
    calls = [{"id": id, "name": name, "arguments": arguments} for id, name, arguments in key.calls]
    said = {
        "role": key.role,
        "text": key.text,
        "calls": calls,
        "tool_call_id": key.tool_call_id,
        "attachments": list(key.attachments),
    }
    return {name: value for name, value in said.items() if value}
