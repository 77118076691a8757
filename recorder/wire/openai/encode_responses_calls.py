"""Encodes tool calls as the items of OpenAI's Responses format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recorder.core.json import loads
from recorder.messages.merge import CUSTOM_CALL
from recorder.wire.openai.responses_items import FUNCTION_CALL, MCP_CALL, item_of_call

EventFields = dict[str, Any]

#: Type of a call -> the stem of its events and the key of its arguments; other calls come in one piece.
_CALLS = {
    FUNCTION_CALL: ("response.function_call_arguments", "arguments"),
    CUSTOM_CALL: ("response.custom_tool_call_input", "input"),
    MCP_CALL: ("response.mcp_call_arguments", "arguments"),
}


class OutputNumbers:
    """Gives the items of one response their numbers and ids."""

    def __init__(self, response_id: str | None, *, same_format: bool) -> None:
        #: Whether the run has this format, so that its items have their numbers again.
        self.same_format = same_format
        self._suffix = (response_id or "").removeprefix("resp_")
        self._next = 0

    def next(self, number: int | None = None) -> int:
        """The number of the next item, which had `number` in the deltas of the run."""
        index = max(self._next, number if number is not None and self.same_format else 0)
        self._next = index + 1
        return index

    def item_id(self, prefix: str, index: int) -> str:
        """The id of an item."""
        return f"{prefix}_{self._suffix}_{index}"


@dataclass(slots=True, eq=False)
class CallItem:
    """A tool call."""

    #: The idx of its deltas, and the fields of its `tool_call` deltas.
    idx: str
    fields: EventFields = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    #: The number of the item; -1 until the call is sent.
    index: int = -1

    @property
    def type(self) -> str:
        """The type of the item."""
        return str(self.fields.get("type") or FUNCTION_CALL)

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments need nothing more; those of a custom tool may be any text."""
        return self.type == CUSTOM_CALL or _is_json(self.arguments)


class CallEncoder:
    """Encodes the calls of one response, whose pieces may be mixed."""

    def __init__(self, numbers: OutputNumbers) -> None:
        self._numbers = numbers
        #: idx of a call -> the call; below, those that are not complete.
        self.calls: dict[str, CallItem] = {}
        self._open: dict[str, CallItem] = {}
        #: The call that is not sent yet, because its name may not be complete.
        self._pending: CallItem | None = None

    def open(self, idx: str) -> None:
        """Adds a call, which is sent later."""
        self.calls[idx] = self._open[idx] = self._pending = CallItem(idx)

    def is_pending(self, idx: str) -> bool:
        """Whether the call with this idx is not sent yet."""
        return self._pending is not None and self._pending.idx == idx

    def add_fields(self, idx: str, fields: Mapping[str, Any]) -> None:
        """Adds the fields of a piece of a call. Other providers send its name in pieces."""
        call = self.calls[idx]
        known = call.fields
        name = f"{known.get('name') or ''}{fields.get('name') or ''}"
        more = (
            fields if self._numbers.same_format else {key: fields[key] for key in ("id",) if fields.get(key)}
        )
        call.fields = {**more, **known, **({"name": name} if name else {})}

    def add_arguments(self, idx: str, text: str) -> Iterator[EventFields]:
        """The events of a piece of the arguments."""
        call = self.calls[idx]
        call.pieces.append(text)
        if (events := _CALLS.get(call.type)) is not None:
            yield {"type": f"{events[0]}.delta", **self._place(call), "delta": text}

    def send_pending(self) -> Iterator[EventFields]:
        """The event that starts the pending call, whose name is complete now."""
        call, self._pending = self._pending, None
        if call is None:
            return
        part = call.idx.partition(".")[2]
        call.index = self._numbers.next(int(part) if part.isdecimal() and len(part) < 9 else None)
        # The id is required: clients return a tool's result with it.
        call.fields = {**call.fields, "id": call.fields.get("id") or f"call_{call.index}"}
        item = self._item(call, "", "in_progress")
        if call.type not in _CALLS:
            item = {key: item[key] for key in item if item[key] != ""}
        yield {"type": "response.output_item.added", "output_index": call.index, "item": item}

    def end(self, *, only_complete: bool = False) -> Iterator[EventFields]:
        """The events that complete all calls, or only those that need no more arguments."""
        for call in [*self._open.values()]:
            if call.index >= 0 and (not only_complete or call.is_complete):
                del self._open[call.idx]
                yield from self._done(call)

    def items(self) -> Iterator[tuple[int, EventFields]]:
        """The complete items by their numbers."""
        return ((call.index, self._item(call, call.arguments, "completed")) for call in self.calls.values())

    def _done(self, call: CallItem) -> Iterator[EventFields]:
        arguments = call.arguments
        if (events := _CALLS.get(call.type)) is not None:
            yield {"type": f"{events[0]}.done", **self._place(call), events[1]: arguments}
        item = self._item(call, arguments, "completed")
        yield {"type": "response.output_item.done", "output_index": call.index, "item": item}

    def _item(self, call: CallItem, arguments: str, status: str) -> EventFields:
        return {"id": self._item_id(call), **item_of_call(call.fields, arguments), "status": status}

    def _place(self, call: CallItem) -> EventFields:
        return {"item_id": self._item_id(call), "output_index": call.index}

    def _item_id(self, call: CallItem) -> Any:
        """The id of the item of a call; an MCP call has no other id."""
        return call.fields["id"] if call.type == MCP_CALL else self._numbers.item_id("fc", call.index)


def _is_json(text: str) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True
