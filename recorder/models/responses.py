"""OpenAI's Responses, as one of the two APIs of `ChatOpenAI`: which requests go there, and how they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.messages import AIMessage, BaseMessage
from recorder.redaction.credentials import shown
from recorder.runs.chat_run import ChatRun
from recorder.runs.run import ErrorOf, Request
from recorder.wire.openai.responses import OpenAIResponses
from recorder.wire.openai.responses_input import (
    Destination,
    input_items,
    messages_and_items,
    recorded_messages,
)
from recorder.wire.reasoning import host_of

#: Options that chat completions do not have. The first line is LangChain's.
_ONLY_HERE = frozenset(
    ("context_management", "include", "previous_response_id", "reasoning", "text", "truncation",
     "background", "conversation", "instructions", "max_output_tokens", "max_tool_calls", "prompt")
)  # fmt: skip
#: How the names of models begin that only Responses serves: LangChain's list. All Codex models belong to them.
_ONLY_MODELS = ("gpt-5-pro", "gpt-5.2-pro", "gpt-5.4-pro", "gpt-5.5-pro", "gpt-5.6-sol")
#: Chat completions refuse the tools of these models. LangChain has the same rule.
_NO_CHAT_TOOLS = "gpt-6"
#: The names of the limit of tokens in chat completions.
_LIMITS = ("max_tokens", "max_completion_tokens")


class ResponsesApi:
    """Makes the requests and the runs of Responses."""

    def __init__(self, *, use_previous_response_id: bool) -> None:
        self._use_previous = use_previous_response_id

    def body(
        self, messages: Sequence[Any], options: Mapping[str, Any], *, host: str, stream: bool
    ) -> dict[str, Any]:
        """The arguments of the SDK's `create`. Raises `ConfigError` for options that have no place in it."""
        fields = _renamed({key: value for key, value in options.items() if value is not None})
        given, start = messages_and_items(messages), 0
        if self._use_previous and "previous_response_id" not in fields:
            start, previous = _continued(given, host)
            fields |= {"previous_response_id": previous} if previous else {}
        to = Destination(host, stored=fields.get("store") is not False)
        body = {"model": fields.pop("model"), "input": input_items(given, to, start), **fields}
        return {**body, "stream": True} if stream else body

    def messages(self, given: Sequence[Any], body: Mapping[str, Any]) -> list[BaseMessage]:
        """The messages of a request, for the handlers: the instructions, and also those that the server has already."""
        return recorded_messages(messages_and_items(given), body.get("instructions"))

    def run(self, request: Request, error_of: ErrorOf, host: str) -> ChatRun:
        """A new run of this request."""
        return ChatRun(request, OpenAIResponses(), error_of, host=host)

    def resource(self, client: Any) -> Any:
        """The part of an SDK client whose `create` sends the request."""
        return client.responses


def needs_responses(options: Mapping[str, Any]) -> bool:
    """Whether only Responses can answer a request with these options."""
    given = {key for key, value in options.items() if value is not None}
    model, tools = str(options.get("model") or ""), options.get("tools") or ()
    if not _ONLY_HERE.isdisjoint(given) or model.startswith(_ONLY_MODELS) or "codex" in model:
        return True
    return any(map(_is_built_in, tools)) or (bool(tools) and model.lower().startswith(_NO_CHAT_TOOLS))


def _is_built_in(tool: Any) -> bool:
    """Whether a tool is one of OpenAI's own. Tools with a dict under the name of their type are chat completions'."""
    kind = tool.get("type", "function") if isinstance(tool, Mapping) else "function"
    return kind != "function" and not isinstance(tool.get(kind), Mapping)


def _continued(messages: Sequence[Any], host: str) -> tuple[int, str | None]:
    """The number of messages that the server has, and the id of its newest response; 0 and None if it has none."""
    for number in range(len(messages) - 1, -1, -1):
        message = messages[number]
        if isinstance(message, AIMessage) and host_of(message) in (None, host):
            id = message.response_metadata.get("id")
            if isinstance(id, str) and id.startswith("resp_"):
                return number + 1, id
    return 0, None


# -- options ----------------------------------------------------------------------------------------------------


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """The options with the names and the forms of Responses. Those that have them already count."""
    if fields.pop("stop", None):
        raise ConfigError(
            "OpenAI's Responses API has no stop sequences; leave out stop, or pass use_responses_api=False for chat "
            "completions"
        )
    for name in _LIMITS:
        if (limit := fields.pop(name, None)) is not None:
            fields.setdefault("max_output_tokens", limit)
    if effort := fields.pop("reasoning_effort", None):
        fields["reasoning"] = {"effort": effort, **(fields.get("reasoning") or {})}
    if text := _text_options(fields.pop("response_format", None), fields.pop("verbosity", None)):
        fields["text"] = {**text, **(fields.get("text") or {})}
    if "tools" in fields:
        fields["tools"] = [*map(_flat, fields["tools"])]
    if "tool_choice" in fields:
        fields["tool_choice"] = _flat(fields["tool_choice"])
    return fields


def _text_options(response_format: Any, verbosity: Any) -> dict[str, Any]:
    """The option `text` for these two options of chat completions."""
    found = {"format": _text_format(response_format)} if response_format is not None else {}
    return {**found, "verbosity": verbosity} if verbosity is not None else found


def _text_format(given: Any) -> dict[str, Any]:
    """A `response_format`, or a JSON schema with its name, in the form of Responses."""
    if isinstance(given, Mapping) and "type" in given and given["type"] != "object":
        return _flat(given)  # type: ignore[no-any-return]
    if isinstance(given, Mapping) and "name" in given and "schema" in given:
        return {"type": "json_schema", **given}
    raise ConfigError(
        f"response_format is {shown(given)}; pass a dict in OpenAI's form, "
        "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}"
    )


def _flat(given: Any) -> Any:
    """A tool, a choice or a format without the dict under the name of its type, which chat completions have."""
    inner = given.get(str(given.get("type"))) if isinstance(given, Mapping) else None
    if not isinstance(inner, Mapping):
        return given
    kind = given["type"]
    return {"type": kind, **inner, **{key: given[key] for key in given if key not in ("type", kind)}}
