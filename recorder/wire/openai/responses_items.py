"""The output items of OpenAI's Responses format: tool calls, reasoning, citations.

Answers and requests share these rules, so that an item means the same when a client sends it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from recorder.core.json import dumps
from recorder.messages.merge import CUSTOM_CALL
from recorder.wire.deltas import as_text
from recorder.wire.recorded_run import value_of

#: Types of items.
MESSAGE, REASONING_ITEM, FUNCTION_CALL, MCP_CALL = "message", "reasoning", "function_call", "mcp_call"
CODE_CALL = "code_interpreter_call"
#: Type of an item that calls a tool -> the keys of its arguments. The first key that is present counts.
_ARGUMENTS = {
    FUNCTION_CALL: ("arguments",),
    CUSTOM_CALL: ("input",),
    MCP_CALL: ("arguments",),
    "tool_search_call": ("arguments",),
    "computer_call": ("action", "actions"),
    "local_shell_call": ("action",),
    "shell_call": ("action",),
    "apply_patch_call": ("operation",),
}
#: Calls that are calls even without `call_id`.
_ALWAYS = frozenset((FUNCTION_CALL, CUSTOM_CALL, MCP_CALL))
#: Keys of a call that have their own place in a tool call, or that change while it is streamed.
_OWN_KEYS = frozenset(("id", "call_id", "name", "status"))
#: Stands between two parts of reasoning.
SEPARATOR = "\n\n"
#: The types of a part with text: of a message, of reasoning.
TEXT_PARTS = frozenset(("output_text", "text", "input_text"))
_REASONING_PARTS = frozenset(("reasoning_text", "summary_text", *TEXT_PARTS))


class ItemCall(NamedTuple):
    """The tool call of an item."""

    id: str
    name: str
    #: The arguments as text: JSON, or for a custom tool any text.
    arguments: str
    #: The other keys of the item; the type is one of them unless it is `function_call`.
    extras: dict[str, Any]


def is_type_of_call(kind: Any) -> bool:
    """Whether items of this type call a tool."""
    return isinstance(kind, str) and kind in _ARGUMENTS


def is_call(item: Mapping[str, Any]) -> bool:
    """Whether an item calls a tool: a function, a custom tool, MCP, or a tool that the client executes."""
    kind = item.get("type")
    if not is_type_of_call(kind):
        return False
    if kind == "tool_search_call":  # the server executes it, unless it says otherwise
        return item.get("execution") == "client"
    return kind in _ALWAYS or bool(item.get("call_id"))


def call_of(item: Mapping[str, Any]) -> ItemCall:
    """The tool call of an item for which `is_call` is true."""
    kind = item["type"]
    keys = _ARGUMENTS[kind]
    name = item.get("name") or kind.removesuffix("_call")
    skipped = _OWN_KEYS.union(keys, ("type",) if kind == FUNCTION_CALL else ())
    extras = {key: item[key] for key in item if key not in skipped and _has_value(item[key])}
    call_id = item.get("call_id") or item.get("id") or ""
    return ItemCall(as_text(call_id), as_text(name), _arguments(item, keys), extras)


def _arguments(item: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        if (value := item.get(key)) is not None:
            # A list is no JSON object, which the arguments of a call are.
            return dumps({key: value}) if isinstance(value, list) else as_text(value)
    return ""


def item_of_call(fields: Mapping[str, Any], arguments: str) -> dict[str, Any]:
    """The item of a tool call, from the fields of its `tool_call` deltas; the opposite of `call_of`."""
    kind = str(fields.get("type"))
    kind = kind if kind in _ARGUMENTS else FUNCTION_CALL
    extras = {key: fields[key] for key in fields if key not in _OWN_KEYS and key != "type"}
    call_id, name = as_text(fields.get("id") or ""), as_text(fields.get("name") or "")
    if kind == MCP_CALL:
        return {"type": kind, "id": call_id, "name": name, "arguments": arguments, **extras}
    item = {"type": kind, "call_id": call_id, **extras}
    key, *others = _ARGUMENTS[kind]
    if kind in _ALWAYS:
        return {**item, "name": name, key: arguments}
    value = value_of(arguments)
    is_listed = isinstance(value, dict) and [*value] == others
    return {**item, **(value if is_listed else {key: value})}


def reasoning_parts(item: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """The texts of a reasoning item, each with the key of its list and its index: first the summary."""
    for key in ("summary", "content"):
        for index, part in enumerate(list_in(item, key)):
            if text := reasoning_text(part):
                yield key, index, text


def reasoning_text(part: Any) -> str:
    """The text of a part of a reasoning item; empty if it has none."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type", "text") not in _REASONING_PARTS:
        return ""
    return as_text(part.get("text") or "")


def wrapped_citation(annotation: Any) -> Any:
    """An annotation in the shape of chat completions, with its fields under its type; anything else is unchanged.

    At the top of a citation, `index` would mean that several citations are pieces of one.
    """
    kind = annotation.get("type") if isinstance(annotation, Mapping) else None
    if not isinstance(kind, str) or kind == "type" or kind in annotation:
        return annotation
    return {"type": kind, kind: {key: annotation[key] for key in annotation if key != "type"}}


def unwrapped_citation(citation: Any) -> Any:
    """The opposite of `wrapped_citation`."""
    kind = citation.get("type") if isinstance(citation, Mapping) else None
    if isinstance(kind, str) and isinstance(citation.get(kind), Mapping):
        return {"type": kind, **citation[kind]}
    return citation


def list_in(fields: Any, key: str) -> list[Any]:
    """The list under a key; empty if there is none."""
    value = fields.get(key) if isinstance(fields, Mapping) else None
    return value if isinstance(value, list) else []


def without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: null, empty texts and empty lists are left out."""
    return {key: value for key, value in fields.items() if _has_value(value)}


def _has_value(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}
