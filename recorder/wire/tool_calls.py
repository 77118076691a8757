"""Finds the tool call that a streamed piece belongs to, by its index, its id, its name and the arguments so far."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from recorder.core.json import dumps

#: At most this many calls are remembered; a stream may go on inventing new ones.
MAX_CALLS = 10_000
#: More than this many unscanned pieces of arguments are scanned at once.
_MAX_UNSCANNED = 4_096
#: Values that mean: no id.
_NO_IDS = frozenset(("", "null", "None"))
_STRUCTURAL = re.compile(r'\\.|\\\Z|["{}\[\]]', re.DOTALL)


class StreamedArguments:
    """The arguments of a call as far as they were received; scanned only when `are_complete` is needed."""

    __slots__ = ("_begun", "_depth", "_escaped", "_quoted", "_tail", "_unscanned", "length", "text")

    def __init__(self) -> None:
        self._unscanned: list[str] = []
        self._depth = 0
        self._tail = ""
        self._quoted = self._escaped = False
        #: Whether they begin with an opening brace; None before the first character that is not blank.
        self._begun: bool | None = None
        self.length = 0
        #: All arguments if they were received in one piece; None if in several.
        self.text: str | None = None

    def add(self, text: str) -> None:
        """Adds the next piece."""
        self.text = text if not self.length else None
        self.length += len(text)
        self._tail = text
        self._unscanned.append(text)
        if len(self._unscanned) > _MAX_UNSCANNED:
            self._scan()

    @property
    def are_complete(self) -> bool:
        """Whether they are a JSON object with its closing brace, so that only blanks may follow."""
        if (tail := self._tail.rstrip()) and tail[-1] != "}":
            return False
        self._scan()
        return bool(self._begun) and not self._depth and not self._quoted

    def equal(self, text: str) -> bool:
        """Whether a text may be equal to all arguments; only the lengths are compared if they came in pieces."""
        return self.text == text if self.text is not None else self.length == len(text)

    def _scan(self) -> None:
        text = "".join(self._unscanned)
        self._unscanned.clear()
        start = 1 if self._escaped and text else 0
        if text:
            self._escaped = False
        if self._begun is None and text.strip():
            self._begun = text.lstrip().startswith("{")
        for match in _STRUCTURAL.finditer(text, start):
            mark = match[0]
            if mark[0] == "\\":
                self._escaped = len(mark) == 1
            elif mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if mark in "{[" else -1


@dataclass(slots=True)
class StreamedCall:
    """One tool call of a choice."""

    #: The idx of its deltas, `choice.number`.
    idx: str
    #: The provider's id and name, as far as they were received.
    id: str | None = None
    name: str = ""
    arguments: StreamedArguments = field(default_factory=StreamedArguments)
    #: Other keys of the call.
    extras: dict[str, Any] = field(default_factory=dict)
    #: Whether the call has any delta.
    is_open: bool = False

    def changes(self, call_id: Any, name: Any, extras: dict[str, Any]) -> dict[str, Any]:
        """The new values in a piece, which are stored. Servers repeat names, and invent another id in each piece."""
        found: dict[str, Any] = {}
        if self.id is None and (new := text_of(call_id)):
            self.id = found["id"] = new
        if (new := text_of(name)) and new != self.name:
            self.name += new
            found["name"] = new
        changed = {key: value for key, value in extras.items() if self.extras.get(key) != value}
        self.extras |= changed
        return found | changed


class StreamedCalls:
    """The calls of one response."""

    def __init__(self) -> None:
        #: (idx of the choice, the provider's index, or its id, or its name) -> the call.
        self._by_index: dict[tuple[str, int], StreamedCall] = {}
        self._by_id: dict[tuple[str, str], StreamedCall] = {}
        self._by_name: dict[tuple[str, str], StreamedCall] = {}
        #: idx of the choice -> its calls by number; the highest number; the call of the last piece.
        self._numbers: dict[str, dict[int, StreamedCall]] = {}
        self._highest: dict[str, int] = {}
        self._last: dict[str, StreamedCall] = {}
        self._count = 0

    def place(
        self, idx: str, index: Any, call_id: Any, name: Any, arguments: str, *, is_last: bool = False
    ) -> StreamedCall | None:
        """The call of a piece; None for a piece that only repeats a complete call.

        Most pieces are identified by their index alone. But some servers give every call the same index, or none, or
        open a call under one index and send its arguments under another. Some repeat id and name with each piece, or
        invent another id. A call with complete arguments accepts no more of them: then a piece with a name begins
        another call. `is_last`: the choice ends with this piece, which may repeat the complete call.
        """
        if type(index) is not int:
            index = int(index) if isinstance(index, str) and index.isdecimal() else None
        if not call_id and not name and index is not None and (call := self._by_index.get((idx, index))):
            return call
        call_id = text_of(call_id)
        name = text_of(name) or ""
        call = self._find(idx, index, call_id, name, arguments)
        if call is None:
            return self._open(idx, index, call_id, name)
        if name and self._begins_another(call, call_id, name, arguments):
            if self._repeats(call, call_id, name, arguments, is_last=is_last):
                return None
            return self._open(idx, index, call_id, name)
        self._remember(call, idx, index, call_id)
        return call

    def at_position(
        self, idx: str, position: int, call_id: Any, assigned: list[StreamedCall]
    ) -> StreamedCall:
        """The call at a position in a complete answer, which may follow its pieces: found by position or by id.

        `assigned` are the calls at the positions before.
        """
        call_id = text_of(call_id)
        listed = list(self._numbers.get(idx, {}).values())
        call = listed[position] if position < len(listed) else None
        if call is None or (call_id and call.id and call.id != call_id):
            call = self._by_id.get((idx, call_id)) if call_id else None
        if call is None or any(call is each for each in assigned):
            call = self._open(idx, position, call_id, "")
        return call

    def _find(
        self, idx: str, index: int | None, call_id: str | None, name: str, arguments: str
    ) -> StreamedCall | None:
        last = self._last.get(idx)
        if index is None:
            if call_id or name:
                found = self._by_id.get((idx, call_id)) if call_id else self._by_name.get((idx, name))
                return found or (last if not name and last and not last.arguments.are_complete else None)
            return last
        if (call := self._by_index.get((idx, index))) is not None:
            return call
        if name:
            return None
        if call_id:
            return self._by_id.get((idx, call_id))
        # A call begins with an id or a name. So these arguments belong to the last call, which has another index and no
        # arguments yet.
        return last if arguments and last is not None and not last.arguments.length else None

    def _begins_another(self, call: StreamedCall, call_id: str | None, name: str, arguments: str) -> bool:
        """Whether a piece with a name begins a new call instead of continuing `call`."""
        if call_id and call.id and call_id != call.id:
            return True
        if not call.arguments.are_complete:
            return False
        return bool(arguments.strip()) or (name != call.name and call_id is None)

    def _repeats(
        self, call: StreamedCall, call_id: str | None, name: str, arguments: str, *, is_last: bool
    ) -> bool:
        same = call_id == call.id if call_id or not is_last else name == call.name
        return same and (call_id is not None or is_last) and call.arguments.equal(arguments)

    def _open(self, idx: str, index: int | None, call_id: str | None, name: str) -> StreamedCall:
        numbers = self._numbers.get(idx, {})
        number = self._highest.get(idx, -1) + 1
        if index is not None and index >= 0 and index not in numbers:
            number = index
        call = StreamedCall(f"{idx}.{number}")
        if self._count < MAX_CALLS:
            self._count += 1
            self._numbers.setdefault(idx, {})[number] = call
            self._highest[idx] = max(number, self._highest.get(idx, -1))
            self._remember(call, idx, index, call_id)
            if name and index is None:
                self._by_name[idx, name] = call
        return call

    def _remember(self, call: StreamedCall, idx: str, index: int | None, call_id: str | None) -> None:
        if index is not None and (len(self._by_index) < MAX_CALLS or (idx, index) in self._by_index):
            self._by_index[idx, index] = call
        if call_id and call.id is None:
            self._by_id[idx, call_id] = call
        self._last[idx] = call


def text_of(value: Any) -> str | None:
    """An id or a name as text; None if there is none (some servers write null as a word)."""
    if not value or (isinstance(value, str) and value in _NO_IDS):
        return None
    return value if isinstance(value, str) else dumps(value)
