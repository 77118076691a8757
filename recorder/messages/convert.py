"""Converts what applications pass into messages, and messages into their stored form and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from recorder.errors import ConfigError, StoreError
from recorder.messages.base import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from recorder.messages.merge import (
    CUSTOM_INPUT,
    InvalidToolCall,
    ToolCall,
    invalid_tool_call,
    parse_args,
    tool_call,
)

_ROLES = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
}
_CLASSES: dict[str, type[BaseMessage]] = {
    "user": HumanMessage,
    "assistant": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
}
#: Arguments of all message classes, and further arguments by role.
_SHARED = ("content", "id", "name", "additional_kwargs", "response_metadata")
_OWN: dict[str, tuple[str, ...]] = {
    "assistant": ("tool_calls", "invalid_tool_calls", "usage_metadata"),
    "tool": ("tool_call_id", "status"),
}
#: Fields of LangChain's messages that are not stored.
_IGNORED = frozenset(
    {"role", "type", "data", "example", "lc", "artifact", "tool_call_chunks", "chunk_position"}
)
#: Fields of a provider's message object that describe the response; they go into `response_metadata`.
_RESPONSE_FIELDS = frozenset(
    {"model", "stop_reason", "stop_sequence", "stop_details", "usage", "container", "parsed"}
)
_STORED = (*_SHARED[1:], "tool_calls", "invalid_tool_calls", "tool_call_id", "usage_metadata")
_ACCEPTED = (
    "a str, a message of recorder.messages or LangChain, a dict with 'role' and 'content', "
    "a (role, content) tuple or a message object of the openai or anthropic SDK"
)


def messages_from(input: Any) -> list[BaseMessage]:
    """The messages of the input of a model. Raises `ConfigError` for what is not a message.

    `input` is a text, a message in any form that `from_any` accepts, a list of these, or a prompt value.
    """
    if hasattr(input, "to_messages"):
        input = input.to_messages()
    given = (
        input if isinstance(input, list) or (isinstance(input, tuple) and not _is_pair(input)) else [input]
    )
    return [message for item in given for message in _each(from_any(item))]


def _each(message: BaseMessage) -> list[BaseMessage]:
    """The message, or several: Anthropic's user messages may contain tool results, which become `ToolMessage`s."""
    blocks = message.content
    if type(message) is not HumanMessage or type(blocks) is str or not any(map(_is_result, blocks)):
        return [message]
    rest = [block for block in blocks if not _is_result(block)]
    results: list[BaseMessage] = [_result(block) for block in blocks if _is_result(block)]
    # Anthropic's API requires the results first, and so do other providers.
    return [*results, HumanMessage(rest, id=message.id, name=message.name)] if rest else results


def _is_result(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_result"


def _result(block: Any) -> ToolMessage:
    status = "error" if block.get("is_error") else "success"
    return ToolMessage(_content(block.get("content")), str(block.get("tool_use_id") or ""), status=status)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str)


def from_any(value: Any) -> BaseMessage:
    """The value as a message. A message of recorder is returned as it is.

    Accepted are a str (a human message), `(role, content)`, dicts in the form of OpenAI, Anthropic or LangChain,
    LangChain's messages and the SDKs' message objects. Raises `ConfigError` for anything else.
    """
    if isinstance(value, BaseMessage):
        return value
    if isinstance(value, str):
        return HumanMessage(value)
    if isinstance(value, Mapping):
        return _from_mapping(dict(value), value)
    if _is_pair(value):
        return _from_mapping({"role": value[0], "content": value[1]}, value)
    return _from_mapping(_fields_of(value), value)


def _fields_of(value: Any) -> dict[str, Any]:
    """The fields of a message object. LangChain's objects have `type`, the SDKs' objects have `role`."""
    # Attribute by attribute: `model_dump` of LangChain's chunks would add derived fields.
    if isinstance(getattr(value, "type", None), str) and hasattr(value, "additional_kwargs"):
        names = (*_SHARED, *_OWN["assistant"], *_OWN["tool"], "type", "role")
        return {name: getattr(value, name) for name in names if getattr(value, name, None) is not None}
    if not isinstance(getattr(value, "role", None), str):
        raise _unknown(value)
    if hasattr(value, "model_dump"):
        return dict(value.model_dump(exclude_none=True))
    names = (*_SHARED, *_OWN["assistant"], *_OWN["tool"], "role", "refusal", "reasoning_content")
    return {name: getattr(value, name) for name in names if getattr(value, name, None) is not None}


def _from_mapping(fields: dict[str, Any], value: Any) -> BaseMessage:
    fields = _unwrapped(fields)
    # LangChain's ChatMessage has both; `role` is the real one.
    word = fields.get("role") or fields.get("type")
    role = _ROLES.get(word, word) if isinstance(word, str) else ""
    # A reply may have no content: only calls, a refusal or audio.
    if not role or ("content" not in fields and role != "assistant"):
        raise _unknown(value)
    if fields.get("type") == "chat":
        return ChatMessage(role=str(word), **_arguments(fields, ()))
    if role == "developer":
        fields["additional_kwargs"] = {
            **(fields.get("additional_kwargs") or {}),
            "__openai_role__": "developer",
        }
        role = "system"
    if role == "assistant":
        _read_calls(fields)
    if role not in _CLASSES:
        return ChatMessage(role=role, **_arguments(fields, ()))
    return _CLASSES[role](**_arguments(fields, _OWN.get(role, ())))


def _unwrapped(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of LangChain's dicts, which are inside `data`, or inside `kwargs` with the class in `id`."""
    if isinstance(fields.get("data"), Mapping) and "content" not in fields:
        return {**fields["data"], "type": fields.get("type")}
    if fields.get("type") == "constructor" and isinstance(fields.get("kwargs"), Mapping):
        inside = dict(fields["kwargs"])
        name = str((fields.get("id") or [""])[-1]).removesuffix("Chunk").removesuffix("Message")
        return {"type": name.lower(), **inside}
    return fields


def _arguments(fields: dict[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    """Arguments for the class. Fields that it does not have go into `additional_kwargs`."""
    known = {name: fields[name] for name in (*_SHARED, *own) if fields.get(name) is not None}
    known["content"] = _content(known.get("content"))
    skipped = _IGNORED.union(_SHARED, own)
    rest = {name: value for name, value in fields.items() if name not in skipped and value not in (None, [])}
    response_fields = {name: rest.pop(name) for name in _RESPONSE_FIELDS & rest.keys()}
    known["additional_kwargs"] = {**(known.get("additional_kwargs") or {}), **rest}
    known["response_metadata"] = {**(known.get("response_metadata") or {}), **response_fields}
    return known


def _content(content: Any) -> Any:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise ConfigError(
            f"message content must be a str or a list of blocks, not {type(content).__name__}; "
            "pass its text, or [block]"
        )
    return [_block(block) for block in content]


def _block(block: Any) -> Any:
    if isinstance(block, str):
        return block
    if isinstance(block, Mapping):
        return dict(block)
    if hasattr(block, "model_dump"):
        return block.model_dump(exclude_none=True)
    raise ConfigError(
        f"a content block must be a str or a dict, not {type(block).__name__}; "
        "pass {'type': 'text', 'text': ...}"
    )


def _read_calls(fields: dict[str, Any]) -> None:
    """Set the calls in our form. OpenAI nests them in `function`; Anthropic puts them into the content."""
    fields["content"] = _content(fields.get("content"))
    raw = [*(fields.get("tool_calls") or ()), *(fields.get("invalid_tool_calls") or ())]
    if not raw and isinstance(fields["content"], list):
        raw = [
            block
            for block in fields["content"]
            if isinstance(block, dict) and block.get("type") == "tool_use"
        ]
    calls = [_call(_call_dict(call)) for call in raw]
    fields["tool_calls"] = [call for call in calls if call.get("type") == "tool_call"]
    fields["invalid_tool_calls"] = [call for call in calls if call.get("type") != "tool_call"]


def _call_dict(call: Any) -> dict[str, Any]:
    if isinstance(found := _block(call), dict):
        return found
    raise ConfigError(f"a tool call must be a dict with 'id', 'name' and 'args', not {call!r:.80}")


def _call(raw: dict[str, Any]) -> ToolCall | InvalidToolCall:
    name, args = _name_and_args(raw)
    extras = _extras(raw)
    if raw.get("type") == "invalid_tool_call":
        return invalid_tool_call(name, args, raw.get("id"), raw.get("error"), extras)
    if args is None or isinstance(args, Mapping):
        return tool_call(name, dict(args or {}), raw.get("id"), extras)
    text = args if isinstance(args, str) else json.dumps(args)
    parsed = parse_args(text)
    if parsed is None:
        return invalid_tool_call(name, text, raw.get("id"), extras=extras)
    return tool_call(name, parsed, raw.get("id"), extras)


def _extras(raw: dict[str, Any]) -> dict[str, Any]:
    """Other fields of the call: under `extras` in LangChain's form, further keys in OpenAI's form."""
    if not isinstance(raw.get("function"), Mapping):
        return dict(raw["extras"]) if isinstance(raw.get("extras"), Mapping) else {}
    inner = {key: raw["function"][key] for key in raw["function"] if key not in ("name", "arguments")}
    found = {key: raw[key] for key in raw if key not in ("index", "id", "type", "function")}
    return {key: value for key, value in {**found, "function": inner}.items() if value}


def _name_and_args(raw: dict[str, Any]) -> tuple[Any, Any]:
    if isinstance(raw.get("function"), Mapping):
        return raw["function"].get("name"), raw["function"].get("arguments")
    if isinstance(raw.get("custom"), Mapping):
        # A custom tool takes plain text as its input.
        return raw["custom"].get("name"), {CUSTOM_INPUT: raw["custom"].get("input")}
    # If LangChain joined Anthropic's chunks, the input is the JSON text.
    return raw.get("name"), raw["args"] if "args" in raw else raw.get("input") or raw.get("partial_json")


def _unknown(value: Any) -> ConfigError:
    shown = repr(value)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return ConfigError(f"cannot read a message from {type(value).__name__} {shown}; pass {_ACCEPTED}")


def to_dict(message: BaseMessage) -> dict[str, Any]:
    """The stored form: a JSON dict of role, content and the other fields that are set. A chunk becomes its message."""
    if isinstance(message, AIMessageChunk):
        message = message.to_message()
    stored: dict[str, Any] = {"role": message.role, "content": message.content}
    if isinstance(message, ChatMessage) and message.role in _CLASSES:
        stored["type"] = "chat"
    if getattr(message, "status", "success") != "success":
        stored["status"] = message.status  # type: ignore[attr-defined]
    return stored | {name: value for name in _STORED if (value := getattr(message, name, None))}


_SCALAR = (str, int, float, NoneType)
#: The types that the fields of a stored message may have.
_SHAPES: Mapping[str, tuple[type[Any], ...]] = {
    "role": (str,), "type": (str,), "content": (str, list, NoneType), "id": _SCALAR, "name": _SCALAR,
    "additional_kwargs": (dict,), "response_metadata": (dict,), "tool_calls": (list,), "invalid_tool_calls": (list,),
    "tool_call_id": _SCALAR, "usage_metadata": (dict, NoneType), "status": _SCALAR,
}  # fmt: skip


def check_stored(stored: Any) -> dict[str, Any]:
    """Return the stored form of a message. Raises `StoreError` if `to_dict` cannot have written it."""
    if not isinstance(stored, dict) or "role" not in stored:
        raise StoreError(
            "A stored message is not an object with a role; the row is damaged or was not written by recorder"
        )
    wrong = [name for name, value in stored.items() if not isinstance(value, _SHAPES.get(name, ()))]
    for name in ("tool_calls", "invalid_tool_calls"):
        if name not in wrong and not all(isinstance(call, dict) for call in stored.get(name, ())):
            wrong.append(name)
    if wrong:
        raise StoreError(
            f"The field {wrong[0]!r:.60} of a stored message has a wrong type; the row is damaged"
        )
    return stored


def from_dict(stored: Mapping[str, Any]) -> BaseMessage:
    """The message of a stored form. It equals the message that `to_dict` was called with."""
    fields = dict(stored)
    role = fields.pop("role")
    if fields.pop("type", None) == "chat" or role not in _CLASSES:
        return ChatMessage(role=role, **fields)
    return _CLASSES[role](**fields)


def after_last_reply(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The messages after the last reply. Handlers have received the ones before it with earlier calls."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role == "assistant":
            return messages[place + 1 :]
    return messages


def readable_messages(input: Any) -> list[BaseMessage]:
    """The messages of an input. An item that is not a message becomes a user message with its `repr`."""
    found: list[BaseMessage] = []
    for item in input if isinstance(input, (list, tuple)) else [input]:
        try:
            found += messages_from(item)
        except Exception:
            found.append(HumanMessage(repr(item)))
    return found
