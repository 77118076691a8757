"""Remembers how much of each output item of OpenAI's Responses format was received, so that nothing counts twice.

A text arrives in pieces, then complete in up to three events of its part and its item, and once more at the end of the
response. Servers and proxies leave out any of these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recorder.messages.merge import CUSTOM_CALL
from recorder.wire.openai.responses_items import (
    CODE_CALL,
    FUNCTION_CALL,
    MCP_CALL,
    MESSAGE,
    REASONING_ITEM,
    list_in,
)

#: At most this many items are remembered, and this many texts of all items.
MAX_ITEMS, MAX_PARTS = 10_000, 100_000
#: Types of items that come in pieces.
_STREAMED = frozenset((MESSAGE, REASONING_ITEM, FUNCTION_CALL, MCP_CALL, CUSTOM_CALL, CODE_CALL))


@dataclass(slots=True, eq=False)
class StreamedPart:
    """One text of an item: a part of its content or its summary, its arguments or its code."""

    #: The item that it belongs to.
    owner: OutputItem | None = None
    #: The number of pieces with the same kind and idx that were received before its first one.
    start: int = 0
    #: Whether pieces were received; whether pieces of another text came between them.
    is_open: bool = False
    is_split: bool = False
    #: Whether the complete text was received.
    is_complete: bool = False
    #: The number of citations received.
    citations: int = 0


@dataclass(slots=True, eq=False)
class OutputItem:
    """One output item of a response."""

    #: The number of the item; pieces of calls have it in their idx.
    number: int
    #: The type, id and id of the call; None until they are received.
    type: str | None = None
    id: str | None = None
    call_id: str | None = None
    #: (key, index) -> the text at this place: ("content", 0), ("summary", 1), ("arguments", 0).
    parts: dict[tuple[str, int], StreamedPart] = field(default_factory=dict)
    #: The keys whose values became deltas.
    sent: set[str] = field(default_factory=set)
    #: Whether the item became a delta; whether the complete item was received.
    is_open: bool = False
    is_complete: bool = False

    @property
    def idx(self) -> str:
        """The idx of the deltas that belong to this item alone."""
        return f"0.{self.number}"

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Sets the type and the ids from the fields of the item, where they are not known yet."""
        self.type = self.type or _text(fields.get("type"))
        self.id = self.id or _text(fields.get("id"))
        self.call_id = self.call_id or _text(fields.get("call_id"))

    def may_be(self, fields: Mapping[str, Any]) -> bool:
        """Whether the fields of an item may be those of this one.

        Some servers give all items the same number, others another id in each event.
        """
        kind, id, call_id = (_text(fields.get(key)) for key in ("type", "id", "call_id"))
        if self.type is not None and kind != self.type:
            return False
        if self.call_id and call_id:
            return self.call_id == call_id
        return not self.is_complete or not id or not self.id or id == self.id


class OutputItems:
    """The output items of one response, found by id or by number."""

    def __init__(self) -> None:
        self._by_number: dict[int, OutputItem] = {}
        self._by_id: dict[str, OutputItem] = {}
        #: The number in events -> the item that has it at present.
        self._by_index: dict[int, OutputItem] = {}
        self._last: OutputItem | None = None
        #: Type -> the newest item of this type.
        self._newest: dict[str | None, OutputItem] = {}
        self._highest = -1
        self._parts = 0
        #: Whether there were more items or texts than are remembered.
        self.is_full = False

    def at(self, event: Mapping[str, Any], kind: str | None = None) -> OutputItem:
        """The item that an event with a piece of it names; a new one if it was not announced.

        `kind` is the type that the item must have. Some servers count the items of each type from 0.
        """
        index, id = number_in(event, "output_index"), _text(event.get("item_id"))
        item = self._by_id.get(id) if id else None
        if item is None:
            item = self._by_index.get(index) if index is not None else self._last
        if item is not None and kind is not None and item.type not in (None, kind):
            item = self._newest.get(kind)
            item = item if item is not None and not item.is_complete else None
        if item is None:
            item = self._open(index)
            item.id = id
            self._remember(item)
        item.type = item.type or kind
        if item.type in _STREAMED:
            self._newest[item.type] = item
        return item

    def announced(self, event: Mapping[str, Any], fields: Mapping[str, Any]) -> OutputItem:
        """The item that an event with the fields of it names; a new one if none with this number may be it."""
        index, id = number_in(event, "output_index"), _text(fields.get("id"))
        known = self._by_id.get(id) if id else None
        if known is None or not known.may_be(fields):
            known = self._by_index.get(index) if index is not None else None
        if known is None or not known.may_be(fields):
            known = self._open(index)
        known.learn(fields)
        self._remember(known)
        if known.type in _STREAMED:
            self._newest[known.type] = known
        return known

    def matched(self, output: Sequence[Mapping[str, Any]]) -> list[OutputItem]:
        """The items of a complete output: known by id, else by position, else by type, else new."""
        found = [self._with_id(fields) for fields in output]
        free = dict.fromkeys(self._by_number)
        for place, item in enumerate(found):
            if item is not None and free.pop(item.number, item) is not None:
                found[place] = None  # two items with one id
        by_type: dict[Any, list[int]] = {}
        for number in reversed(free):
            by_type.setdefault(self._by_number[number].type, []).append(number)
        return [
            item or self._without_id(place, fields, free, by_type)
            for place, (item, fields) in enumerate(zip(found, output, strict=True))
        ]

    def part(self, item: OutputItem, key: str, index: int, known: StreamedPart | None = None) -> StreamedPart:
        """The text at a place of an item: `known`, or a new one. Beyond `MAX_PARTS`, one that is complete."""
        part = item.parts.get((key, index))
        if part is not None:
            return part
        part = known or StreamedPart(item)
        if self._parts < MAX_PARTS:
            self._parts += 1
            item.parts[key, index] = part
        elif known is None:
            self.is_full = part.is_complete = True
            part.citations = sys.maxsize
        return part

    def _with_id(self, fields: Mapping[str, Any]) -> OutputItem | None:
        for key in ("call_id", "id"):
            id = _text(fields.get(key))
            item = self._by_id.get(id) if id else None
            if item is not None and item.type in (None, fields.get("type")):
                return item
        return None

    def _without_id(
        self, place: int, fields: Mapping[str, Any], free: dict[int, None], by_type: dict[Any, list[int]]
    ) -> OutputItem:
        """The free item at this place, or the first free one, if it may have the type of the fields; else a new one."""
        kind = _text(fields.get("type"))
        item = self._by_number[place] if place in free else None
        if item is None or item.type not in (None, kind):
            item = next((self._by_number[each] for each in _popped(by_type.get(kind)) if each in free), None)
        if item is None:
            item = self._open(place)
        free.pop(item.number, None)
        item.learn(fields)
        return item

    def _open(self, index: int | None) -> OutputItem:
        number = self._highest + 1
        if index is not None and index not in self._by_number:
            number = index
        item = OutputItem(number)
        if len(self._by_number) < MAX_ITEMS:
            self._highest = max(number, self._highest)
            self._by_number[number] = item
            if index is not None:
                self._by_index[index] = item
        else:
            self.is_full = item.is_complete = True
        self._last = item
        return item

    def _remember(self, item: OutputItem) -> None:
        for id in (item.id, item.call_id):
            if id and item.number in self._by_number and len(self._by_id) < 2 * MAX_ITEMS:
                self._by_id[id] = item


def _popped(numbers: list[int] | None) -> Iterator[int]:
    while numbers:
        yield numbers.pop()


def number_in(fields: Mapping[str, Any], key: str) -> int | None:
    """The number under a key; None if there is none."""
    value = fields.get(key)
    return value if type(value) is int and 0 <= value < 2**31 else None


def items_in(response: Any) -> list[dict[str, Any]]:
    """The items of a response's output; what is no object is left out."""
    return [item for item in list_in(response, "output") if isinstance(item, dict)]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
