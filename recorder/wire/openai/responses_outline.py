"""The outline of a reply in OpenAI's Responses format: its output items without their texts.

A message has one text, however many items it came in. OpenAI wants the items of a reply back as it sent them: in their
order, with their ids, and each reasoning item before the item that it led to. So the reply keeps an outline, and the
items are made again from the message and its outline. An outline has the length of each text (characters). If the
application has changed the message, the lengths or the calls do not agree, and there are no items to make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recorder.core.json import dumps
from recorder.messages.merge import CUSTOM_CALL, CUSTOM_INPUT
from recorder.wire.deltas import as_text
from recorder.wire.openai.responses_items import (
    FUNCTION_CALL,
    MESSAGE,
    REASONING_ITEM,
    SEPARATOR,
    TEXT_PARTS,
    is_call,
    is_type_of_call,
    item_of_call,
    list_in,
    reasoning_text,
    unwrapped_citation,
)

if TYPE_CHECKING:
    from recorder.messages import AIMessage

#: Keys of an item that the outline keeps. Other keys are kept if they are null, which some items must have.
_KEPT = frozenset(("type", "id", "call_id", "status", "role", "phase"))
#: Types of items that need no id of their own when they are sent back.
_PLAIN = frozenset((MESSAGE, FUNCTION_CALL, CUSTOM_CALL))
#: Keys with the texts of reasoning.
_REASONING_KEYS = ("summary", "content")
#: The key of an item's number among the items of the reply.
_PLACE = "place"


def outline_of(item: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The outline of an output item, which is the one with the number `place`."""
    found = {key: value for key, value in item.items() if key in _KEPT or value is None}
    kind = item.get("type")
    if kind == MESSAGE:
        found["content"] = [_part_outline(part) for part in _message_parts(item)]
    elif kind == REASONING_ITEM:
        for key in (key for key in _REASONING_KEYS if isinstance(item.get(key), list)):
            found[key] = [_reasoning_outline(part) for part in item[key]]
        if item.get("encrypted_content"):
            found["encrypted_content"] = item["encrypted_content"]
    elif not is_call(item):
        found[_PLACE] = place
    return found


def is_needed(outline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the message alone is not sufficient: there is more than a text and calls of the application's tools."""
    kinds = [*map(_type_of, outline)]
    return MESSAGE in kinds[1:] or not _PLAIN.issuperset(kinds)


def items_of(message: AIMessage, outline: Any) -> list[dict[str, Any]] | None:
    """The output items of a reply. None if the outline is not that of the message."""
    if not isinstance(outline, list) or not isinstance(message.content, str):
        return None
    maker = _ItemMaker(message)
    try:
        items = [maker.item(entry) for entry in outline]
    except (LookupError, TypeError, AttributeError):
        return None
    return items if maker.is_used_up else None


def call_item(call: Mapping[str, Any], *, with_extras: bool = True) -> dict[str, Any]:
    """The item of a tool call of a message, valid or invalid, without the id of the item.

    Without `with_extras`, a call of a function has no more than its name and arguments: other formats have other keys.
    """
    extras, args = call.get("extras") or {}, call.get("args")
    if not (with_extras or is_type_of_call(extras.get("type"))):
        extras = {}
    if extras.get("type") == CUSTOM_CALL and isinstance(args, dict):
        arguments = as_text(args.get(CUSTOM_INPUT) or "")
    else:
        arguments = dumps(args) if isinstance(args, dict) else args or ""
    return item_of_call({**extras, "id": call.get("id") or "", "name": call.get("name") or ""}, arguments)


def text_part(text: str, citations: Sequence[Any]) -> dict[str, Any]:
    """A text of the model, with its citations as messages have them."""
    return {"type": "output_text", "text": text, "annotations": [*map(unwrapped_citation, citations)]}


def citations_of(message: AIMessage) -> list[Any]:
    """The citations of a message."""
    return list_in(message.additional_kwargs, "annotations")


def _message_parts(item: Mapping[str, Any]) -> list[Any]:
    content = item.get("content")
    return (
        [{"type": "output_text", "text": content}] if isinstance(content, str) else list_in(item, "content")
    )


def _part_outline(part: Any) -> dict[str, Any]:
    """The outline of a part of a message; without a length if it is neither a text nor a refusal."""
    kind = _type_of(part)
    if kind in TEXT_PARTS:
        found = {"type": "output_text", "length": len(as_text(part.get("text") or ""))}
        count = len(list_in(part, "annotations"))
        return {**found, "citations": count} if count else found
    if kind == "refusal":
        return {"type": kind, "length": len(as_text(part.get("refusal") or ""))}
    return {"type": kind}


def _reasoning_outline(part: Any) -> dict[str, Any]:
    return {"type": _type_of(part) or "summary_text", "length": len(reasoning_text(part))}


def _type_of(fields: Any) -> str:
    """The type of an item or a part; empty if it has none."""
    kind = fields.get("type") if isinstance(fields, Mapping) else None
    return kind if isinstance(kind, str) else ""


class _ItemMaker:
    """Makes the items of one message. Raises `LookupError` where the message has not what the outline says."""

    def __init__(self, message: AIMessage) -> None:
        more = message.additional_kwargs
        assert isinstance(message.content, str)
        self._texts = _Cutter(message.content)
        self._refusals = _Cutter(as_text(more.get("refusal") or ""))
        self._reasoning = _Cutter(as_text(more.get("reasoning_content") or ""), SEPARATOR)
        self._citations = citations_of(message)
        self._calls: dict[str, list[dict[str, Any]]] = {}
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            self._calls.setdefault(call.get("id") or "", []).append(call_item(call))
        self._others = {item.get("index"): item for item in list_in(more, "output") if isinstance(item, dict)}

    @property
    def is_used_up(self) -> bool:
        """Whether the items have all that the message has."""
        rests = (self._texts.rest, self._refusals.rest, self._reasoning.rest, self._citations)
        return not any(rests) and not any(self._calls.values())

    def item(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The item of the next entry."""
        kind = entry["type"]
        if kind == MESSAGE:
            return {**entry, "content": [self._part(part) for part in entry["content"]]}
        if kind == REASONING_ITEM:
            return {**entry, **dict(self._reasoning_texts(entry))}
        if _PLACE in entry:
            other = self._others[entry[_PLACE]]
            return {key: value for key, value in {**other, **entry}.items() if key not in ("index", _PLACE)}
        return {**self._calls[entry.get("call_id") or entry.get("id") or ""].pop(0), **entry}

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] == "refusal":
            return {"type": "refusal", "refusal": self._refusals.cut(part["length"])}
        count = part.get("citations", 0)
        mine, self._citations = self._citations[:count], self._citations[count:]
        if len(mine) < count:
            raise LookupError("citations")
        return text_part(self._texts.cut(part["length"]), mine)

    def _reasoning_texts(self, entry: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for key in (key for key in _REASONING_KEYS if isinstance(entry.get(key), list)):
            yield (
                key,
                [{"type": part["type"], "text": self._reasoning.cut(part["length"])} for part in entry[key]],
            )


class _Cutter:
    """Cuts a text into pieces; a separator before a piece is left out."""

    def __init__(self, text: str, separator: str = "") -> None:
        self.rest = text
        self._separator = separator
        self._has_begun = False

    def cut(self, length: int) -> str:
        """The next piece. Raises `LookupError` if the rest is shorter."""
        if length and self._has_begun:
            self.rest = self.rest.removeprefix(self._separator)
        self._has_begun = self._has_begun or length > 0
        found, self.rest = self.rest[:length], self.rest[length:]
        if len(found) < length:
            raise LookupError("text")
        return found
