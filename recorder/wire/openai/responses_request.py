"""Reads the messages of a request in OpenAI's Responses format.

Consecutive items of the model are one message: clients send back the items of `response.output`, and the recorded reply
to the earlier request is one message too. Text, calls, reasoning, refusals and citations have the same places in it.
Other items of the model are under `output` in `additional_kwargs`, as in the reply. An item of an unknown type becomes
a content block of a user's message.
https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.core.json import dumps
from recorder.errors import ConfigError
from recorder.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolMessage,
    from_any,
    invalid_tool_call,
    tool_call,
)
from recorder.messages.merge import args_of_call
from recorder.wire.deltas import as_text
from recorder.wire.openai.responses_items import (
    MESSAGE,
    REASONING_ITEM,
    SEPARATOR,
    TEXT_PARTS,
    call_of,
    is_call,
    list_in,
    reasoning_parts,
    without_empty,
    wrapped_citation,
)

#: Items of the model that are neither messages nor end with `_call`.
_OF_THE_MODEL = frozenset(
    (REASONING_ITEM, "compaction", "compaction_summary", "mcp_list_tools", "mcp_approval_request", "program",
     "program_output")
)  # fmt: skip
#: Keys of a tool's result that say where it belongs.
_RESULT_KEYS = frozenset(("type", "id", "call_id", "status"))
#: Keys of a reasoning item that are read as its texts, or that change.
_READ_OF_REASONING = frozenset(("summary", "content", "status"))


def responses_messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    """The messages of a request body: the instructions as a system message, then the input. Never raises."""
    builder = _MessageBuilder()
    for item in _items_of(body.get("instructions"), "system"):
        builder.add(item)
    builder.end_reply()
    for item in _items_of(body.get("input"), "user"):
        builder.add(item)
    builder.end_reply()
    return builder.messages


def conversation_id(body: Mapping[str, Any]) -> str | None:
    """The id of the conversation that OpenAI keeps, if the request names one."""
    given = body.get("conversation")
    found = given.get("id") if isinstance(given, Mapping) else given
    return found if isinstance(found, str) and found else None


def _items_of(value: Any, role: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value else []
    items = value if isinstance(value, (list, tuple)) else [value] if value is not None else []
    return [_plain(item) for item in items]


def _plain(item: Any) -> Any:
    """The item as JSON; applications pass objects of the SDK too."""
    dump = getattr(item, "model_dump", None)
    return dump(mode="json", exclude_none=True) if callable(dump) else item


class _MessageBuilder:
    """Collects the items of the model until another item ends the reply."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []
        self._reply: _ReplyItems | None = None

    def add(self, item: Any) -> None:
        """Adds the next item of the input."""
        if isinstance(item, Mapping) and (_is_of_the_model(item) or self._is_result_of_the_server(item)):
            if self._reply is None:
                self._reply = _ReplyItems()
            self._reply.add(item)
        else:
            self.end_reply()
            self.messages.append(_message(item))

    def _is_result_of_the_server(self, item: Mapping[str, Any]) -> bool:
        """Whether an item is the result of a call that the server executed, so that it is an item of the reply."""
        call_id = item.get("call_id")
        is_result = str(item.get("type")).endswith("_output") and isinstance(call_id, str)
        return is_result and self._reply is not None and call_id in self._reply.server_calls

    def end_reply(self) -> None:
        """Makes a message of the model's items so far."""
        if self._reply is not None:
            self.messages.append(self._reply.message())
            self._reply = None


def _is_of_the_model(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    if kind in (None, MESSAGE):
        return item.get("role") == "assistant"
    if kind == "tool_search_output":
        return item.get("execution") != "client"
    return isinstance(kind, str) and (kind in _OF_THE_MODEL or kind.endswith("_call"))


def _message(item: Any) -> BaseMessage:
    """The message of an item that is not the model's."""
    if not isinstance(item, Mapping):
        return HumanMessage(item if isinstance(item, str) else [{"type": "unknown", "value": item}])
    kind, role = item.get("type"), item.get("role")
    if kind in (None, MESSAGE) and isinstance(role, str) and role:
        return _message_of_role(role, item)
    if isinstance(kind, str) and kind.endswith("_output"):
        return _result(kind, item)
    return HumanMessage([dict(item)])


def _message_of_role(role: str, item: Mapping[str, Any]) -> BaseMessage:
    content = item.get("content")
    content = _content(content) if isinstance(content, (str, list)) else as_text(content or "")
    try:
        message = from_any({"role": role, "content": content, "name": item.get("name") or None})
    except ConfigError:  # a block that is neither a text nor an object
        return ChatMessage(dumps(content), role)
    return message if not isinstance(message, AIMessage | ToolMessage) else ChatMessage(content, role)


def _result(kind: str, item: Mapping[str, Any]) -> ToolMessage:
    """The result of a tool: text and blocks as they are; anything else is a block with the fields of the item."""
    output, call_id = item.get("output"), as_text(item.get("call_id") or item.get("id") or "")
    is_plain = isinstance(output, str) or (isinstance(output, list) and all(map(_is_block, output)))
    content: Any = _content(output) if is_plain else [{"type": kind, **_beside(item, _RESULT_KEYS)}]
    more = _beside(item, _RESULT_KEYS | {"output"}) if is_plain else {}
    status = "error" if item.get("status") in ("failed", "incomplete") else "success"
    return ToolMessage(content, call_id, status=status, additional_kwargs=more)


def _content(content: Any) -> Any:
    """The content with its texts as blocks of the type `text`, which messages have in all formats."""
    if isinstance(content, str):
        return content
    return [{**part, "type": "text"} if _is_text(part) else part for part in content]


def _is_text(part: Any) -> bool:
    return _is_block(part) and part["type"] in TEXT_PARTS and isinstance(part.get("text"), str)


def _is_block(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("type"), str)


def _beside(item: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return without_empty({key: item[key] for key in item if key not in keys})


class _ReplyItems:
    """The items of one reply of the model."""

    def __init__(self) -> None:
        #: Ids of the calls that the server executes: of a shell in a container.
        self.server_calls: set[str] = set()
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusals: list[str] = []
        self._citations: list[Any] = []
        self._others: list[Any] = []
        self._phase: Any = None
        self._calls: list[Any] = []
        self._invalid_calls: list[Any] = []

    def add(self, item: Mapping[str, Any]) -> None:
        """Adds the next item."""
        kind = item.get("type")
        if kind in (None, MESSAGE):
            self._phase = item.get("phase") or self._phase
            content = item.get("content")
            for part in content if isinstance(content, list) else [content] if content else []:
                self._add_part(part)
        elif is_call(item):
            self._add_call(item)
        elif kind == REASONING_ITEM:
            self._reasoning += [text for _, _, text in reasoning_parts(item)]
            if (rest := _beside(item, _READ_OF_REASONING)).keys() != {"type"}:
                self._others.append(rest)
        else:
            self._others.append(dict(item))

    def message(self) -> AIMessage:
        """The message of all items."""
        more = {
            "reasoning_content": SEPARATOR.join(self._reasoning),
            "refusal": "".join(self._refusals),
            "annotations": self._citations,
            "output": self._others,
            "phase": self._phase,
        }
        return AIMessage(
            "".join(self._texts),
            additional_kwargs=without_empty(more),
            tool_calls=self._calls,
            invalid_tool_calls=self._invalid_calls,
        )

    def _add_part(self, part: Any) -> None:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            self._texts.append(part)
        elif kind in TEXT_PARTS:
            self._texts.append(as_text(part.get("text") or ""))
            self._citations += map(wrapped_citation, list_in(part, "annotations"))
        elif kind == "refusal":
            self._refusals.append(as_text(part.get("refusal") or ""))
        else:
            self._others.append({"type": MESSAGE, "content": [part]})

    def _add_call(self, item: Mapping[str, Any]) -> None:
        call = call_of(item)
        environment = item.get("environment")
        if isinstance(environment, Mapping) and environment.get("type") == "container_reference":
            self.server_calls.add(call.id)
        args = args_of_call(call.arguments, call.extras)
        if args is None:
            invalid = invalid_tool_call(call.name, call.arguments, call.id, extras=call.extras)
            self._invalid_calls.append(invalid)
        else:
            self._calls.append(tool_call(call.name, args, call.id, call.extras))
