"""Encodes deltas as the output items of OpenAI's Responses format: the events of each item, and the complete items.

A run of this format has its own items again. In any other run a message, or reasoning, begins when the kind of the
deltas changes, and each tool call is an item; signatures and `other` deltas are left out. Only the first choice is
sent, because the format has no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
)
from recorder.wire.openai.encode_responses_calls import CallEncoder, EventFields, OutputNumbers
from recorder.wire.openai.responses_items import (
    MESSAGE,
    REASONING_ITEM,
    SEPARATOR,
    unwrapped_citation,
)
from recorder.wire.recorded_run import RESPONSES, Recorded, choice_of, object_of, value_of

#: Kind -> the stem of its events, the type of its part, the key of its text, the type of its item.
_TEXTS = {
    TEXT: ("response.output_text", "output_text", "text", MESSAGE),
    REFUSAL: ("response.refusal", "refusal", "refusal", MESSAGE),
    REASONING: ("response.reasoning_summary_text", "summary_text", "text", REASONING_ITEM),
}
#: Type of an item -> the prefix of its id, the key of its parts, the key of a part's number, the stem of their events.
_ITEMS = {
    MESSAGE: ("msg", "content", "content_index", "response.content_part"),
    REASONING_ITEM: ("rs", "summary", "summary_index", "response.reasoning_summary_part"),
}
_CODE = "response.code_interpreter_call_code"
#: An `other` delta with an item that has no other keys is a piece of the item's code.
_CODE_KEYS = frozenset(("index", "id", "type", "code"))
#: The parts of an item before they have their text.
_EMPTY: dict[str, EventFields] = {
    "output_text": {"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
    "refusal": {"type": "refusal", "refusal": ""},
    "summary_text": {"type": "summary_text", "text": ""},
}


@dataclass(slots=True, eq=False)
class TextItem:
    """A message or reasoning; its parts come one after another."""

    index: int
    fields: EventFields
    #: The open part, the kind and idx of its deltas, and its pieces; None if no part is open.
    part: EventFields | None = None
    place: tuple[str, str] = ("", "")
    pieces: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[EventFields]:
        """All parts, the open one is the last."""
        parts: list[EventFields] = self.fields[_ITEMS[self.fields["type"]][1]]
        return parts


class OutputEncoder:
    """Encodes the output items of one run as events without their numbers."""

    def __init__(self, run: Recorded) -> None:
        self._same_format = run.wire == RESPONSES
        self._numbers = OutputNumbers(run.response_id, same_format=self._same_format)
        self._calls = CallEncoder(self._numbers)
        #: Number -> the item, for items that are no calls.
        self._items: dict[int, EventFields] = {}
        self._text_item: TextItem | None = None
        #: An item of another type whose pieces may go on: its number, its fields, the pieces of its code.
        self._other: tuple[int, EventFields, list[str]] | None = None
        #: A blank line that stands before the next part of reasoning, if there is one.
        self._has_separator = self._has_reasoning = False

    def output(self) -> list[EventFields]:
        """The complete items."""
        items = self._items | dict(self._calls.items())
        return [items[index] for index in sorted(items)]

    def events(self, delta: Delta) -> Iterator[EventFields]:
        """The events of one delta; none if the format cannot express it."""
        text, kind, idx = delta
        if choice_of(idx) != 0:
            return
        if not (kind == TOOL_CALL and self._calls.is_pending(idx)):
            yield from self._calls.send_pending()
        if kind == REASONING:
            yield from self._reasoning(text, idx)
            return
        yield from self._separator()
        if kind in (TEXT, REFUSAL):
            yield from self._piece(text, kind, idx)
        elif kind in (TOOL_CALL, TOOL_ARGS):
            yield from self._call(text, kind, idx)
        elif kind == CITATION:
            yield from self._citation(text, idx)
        elif self._same_format and kind == SIGNATURE:
            yield from self._signature(text)
        elif self._same_format and kind == OTHER:
            yield from self._other_delta(object_of(text))

    def end(self) -> Iterator[EventFields]:
        """The events that complete all items."""
        yield from self._calls.send_pending()
        yield from self._separator()
        yield from self._close()
        yield from self._calls.end()

    def _call(self, text: str, kind: str, idx: str) -> Iterator[EventFields]:
        if idx not in self._calls.calls:
            yield from self._close()
            self._calls.open(idx)
        if kind == TOOL_CALL:
            self._calls.add_fields(idx, object_of(text))
            return
        yield from self._calls.send_pending()
        yield from self._calls.add_arguments(idx, text)

    def _close(self) -> Iterator[EventFields]:
        """The events that complete the open item, and each call that is complete."""
        if (item := self._text_item) is not None:
            yield from self._close_part(item)
            self._text_item = None
            if item.fields["type"] == MESSAGE:
                item.fields["status"] = "completed"
            yield _event("response.output_item.done", output_index=item.index, item=item.fields)
        yield from self._close_other()
        yield from self._calls.end(only_complete=True)

    def _close_other(self) -> Iterator[EventFields]:
        if self._other is not None:
            (number, fields, pieces), self._other = self._other, None
            if pieces:
                fields["code"] = "".join(pieces)
            yield _event("response.output_item.done", output_index=number, item=fields)

    # -- texts --------------------------------------------------------------------------------------------------

    def _text_of_type(self, kind: str, **fields: Any) -> Iterator[EventFields]:
        """Opens a message or reasoning, unless the open item is one."""
        if self._text_item is not None and self._text_item.fields["type"] == kind and not fields:
            return
        yield from self._close()
        prefix, key, _, _ = _ITEMS[kind]
        index = self._numbers.next()
        more = {"status": "in_progress", "role": "assistant", **fields} if kind == MESSAGE else {}
        item = {"id": self._numbers.item_id(prefix, index), "type": kind, **more, key: []}
        self._items[index] = item
        self._text_item = TextItem(index, item)
        yield _event("response.output_item.added", output_index=index, item={**item, key: []})

    def _open_part(self, kind: str, idx: str) -> Iterator[EventFields]:
        """Opens a part of the open item for deltas with this kind and idx, unless the open part is one."""
        item = self._text_item
        assert item is not None
        if item.part is not None and item.place == (kind, idx):
            return
        yield from self._close_part(item)
        empty = _EMPTY[_TEXTS[kind][1]]
        item.part = {**empty, **({"annotations": []} if kind == TEXT else {})}
        item.place = kind, idx
        item.parts.append(item.part)
        yield self._part_event("added", item, empty)

    def _close_part(self, item: TextItem) -> Iterator[EventFields]:
        if item.part is None:
            return
        stem, _, key, _ = _TEXTS[item.place[0]]
        part, item.part = item.part, None
        part[key] = "".join(item.pieces)
        item.pieces.clear()
        yield _event(f"{stem}.done", **self._place(item), **{key: part[key]})
        yield self._part_event("done", item, part)

    def _part_event(self, word: str, item: TextItem, part: EventFields) -> EventFields:
        return _event(f"{_ITEMS[item.fields['type']][3]}.{word}", **self._place(item), part=part)

    def _place(self, item: TextItem) -> EventFields:
        number = len(item.parts) - 1
        index_key = _ITEMS[item.fields["type"]][2]
        return {"item_id": item.fields["id"], "output_index": item.index, index_key: number}

    def _piece(self, text: str, kind: str, idx: str) -> Iterator[EventFields]:
        yield from self._text_of_type(_TEXTS[kind][3])
        yield from self._open_part(kind, idx)
        assert self._text_item is not None
        self._text_item.pieces.append(text)
        more: EventFields = {"logprobs": []} if kind == TEXT else {}
        yield _event(f"{_TEXTS[kind][0]}.delta", **self._place(self._text_item), delta=text, **more)

    def _reasoning(self, text: str, idx: str) -> Iterator[EventFields]:
        """Encodes a piece of reasoning. A blank line of this format begins another part."""
        is_separator = self._same_format and text == SEPARATOR and self._has_reasoning
        if is_separator and not self._has_separator:
            self._has_separator = True
            return
        item = self._text_item
        if self._has_separator and item is not None and item.fields["type"] == REASONING_ITEM:
            yield from self._close_part(item)
        self._has_separator, self._has_reasoning = False, True
        yield from self._piece(text, REASONING, idx)

    def _separator(self) -> Iterator[EventFields]:
        """The blank line as a piece, because no part of reasoning follows it."""
        if self._has_separator:
            self._has_separator = False
            yield from self._piece(SEPARATOR, REASONING, "0")

    def _signature(self, text: str) -> Iterator[EventFields]:
        yield from self._text_of_type(REASONING_ITEM)
        assert self._text_item is not None
        self._text_item.fields["encrypted_content"] = text
        yield from self._close()

    def _citation(self, text: str, idx: str) -> Iterator[EventFields]:
        yield from self._text_of_type(MESSAGE)
        item = self._text_item
        assert item is not None
        if item.part is None or item.place[0] != TEXT:
            yield from self._open_part(TEXT, idx)
        assert item.part is not None
        annotation = self._annotation(text, sum(map(len, item.pieces)))
        if annotation is None:
            return
        annotations = item.part["annotations"]
        annotations.append(annotation)
        number = len(annotations) - 1
        place = self._place(item)
        kind = "response.output_text.annotation.added"
        yield _event(kind, **place, annotation_index=number, annotation=annotation)

    def _annotation(self, text: str, position: int) -> Any:
        """The citation in this format; None for one of another format that has no URL."""
        if self._same_format:
            return unwrapped_citation(value_of(text))
        cited = unwrapped_citation(object_of(text))
        if not isinstance(cited.get("url"), str):
            return None
        place = {"start_index": position, "end_index": position}
        known = {key: cited[key] for key in ("url", "title", *place) if cited.get(key) is not None}
        return {"type": "url_citation", "title": "", **place, **known}

    # -- other items ----------------------------------------------------------------------------------------------

    def _other_delta(self, fields: EventFields) -> Iterator[EventFields]:
        """The events of an `other` delta of this format: the phase of a message, items, events."""
        if "phase" in fields:
            yield from self._text_of_type(MESSAGE, phase=fields["phase"])
        if events := _dicts_in(fields.get("events")):
            yield from self._close_other()
            yield from events
        for piece in _dicts_in(fields.get("output")):
            if piece.get("type") == MESSAGE:
                yield from self._unknown_parts(piece)
            else:
                yield from self._other_piece(piece)

    def _unknown_parts(self, piece: EventFields) -> Iterator[EventFields]:
        """The events of parts of a message that are of other types."""
        yield from self._text_of_type(MESSAGE)
        item = self._text_item
        assert item is not None
        for part in piece.get("content") or ():
            yield from self._close_part(item)
            item.parts.append(part)
            yield self._part_event("added", item, part)
            yield self._part_event("done", item, part)

    def _other_piece(self, piece: EventFields) -> Iterator[EventFields]:
        fields = {key: piece[key] for key in piece if key != "index"}
        number = piece["index"] if type(piece.get("index")) is int else None
        if self._other is None or self._other[0] != number:
            yield from self._close()
            known: EventFields = {}
            index = self._numbers.next(number)
            self._items[index] = known
            self._other = index, known, []
            start = {key: fields[key] for key in ("id", "type", "call_id") if key in fields}
            yield _event(
                "response.output_item.added", output_index=index, item={**start, "status": "in_progress"}
            )
        index, known, code = self._other
        known |= fields
        if "code" in fields and _CODE_KEYS.issuperset(piece):
            code.append(str(fields["code"]))
            yield _event(f"{_CODE}.delta", output_index=index, item_id=known.get("id"), delta=code[-1])


def _event(kind: str, **fields: Any) -> EventFields:
    return {"type": kind, **fields}


def _dicts_in(value: Any) -> list[EventFields]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
