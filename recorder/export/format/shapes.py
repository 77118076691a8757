"""The rows that are written as objects, by name, and what each of their columns holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

from recorder.core.clock import iso, parse_iso
from recorder.core.json import dumps, loads
from recorder.storage.frame_block import MAX_OFFSET
from recorder.storage.rows import (
    AnnotationRow,
    ConversationRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunRow,
    SegmentRow,
)

FORMAT = "recorder"
VERSION = 1
#: The most tokens or frames that a run may have: the sum of two is an integer of 64 bits, too.
MOST = 2**62
#: The deepest JSON that is read; what Python and the databases write and read again is nested a little deeper.
_DEEPEST = 500

#: A row of any table.
Row = ConversationRow | Producer | MessageRow | RunRow | SegmentRow | FrameRow | GapRow | AnnotationRow

#: What is written as an object, by the kind of its line.
OBJECTS: Mapping[str, type[Any]] = {
    "conversation": ConversationRow,
    "producer": Producer,
    "message": MessageRow,
    "run": RunRow,
    "annotation": AnnotationRow,
}
KINDS: Mapping[type[Any], str] = {made: kind for kind, made in OBJECTS.items()}

#: Columns of JSON text.
_JSON = frozenset(("metadata", "parts", "usage", "request", "tags", "data"))
#: Behind the name of a column whose JSON is not written as JSON usually is: its text.
_AS_TEXT = ":text"


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    #: str, int, float, datetime or json.
    holds: str
    required: bool


def _declared(made: type[Any]) -> tuple[_Column, ...]:
    found = []
    for name, type_ in get_type_hints(made).items():
        kinds = [kind for kind in get_args(type_) or (type_,) if kind is not NoneType]
        holds = "json" if name in _JSON else str(kinds[0].__name__)
        found.append(_Column(name, holds, required=not get_args(type_)))
    return tuple(found)


_COLUMNS = {made: _declared(made) for made in KINDS}


def object_of(row: Any) -> dict[str, Any]:
    """The columns of a row that are not NULL, by name."""
    found: dict[str, Any] = {}
    for column in _COLUMNS[type(row)]:
        value = getattr(row, column.name)
        if value is None:
            continue
        if column.holds == "datetime":
            found[column.name] = iso(value)
        elif column.holds == "json":
            found |= _json(column.name, value)
        else:
            found[column.name] = value
    return found


def _json(name: str, text: str) -> dict[str, Any]:
    """JSON as a value where it comes back as the same text, as all does that recorder itself has written."""
    try:
        value = loads(text)
    except ValueError:
        return {name + _AS_TEXT: text}
    return {name: value} if value is not None and dumps(value) == text else {name + _AS_TEXT: text}


def row_of(kind: str, said: Any) -> Any:
    """The row that `object_of` was given. Raises `ValueError` with what is wrong; what is more is ignored."""
    if not isinstance(said, dict):
        raise ValueError(f"a {kind} is an object")
    made = OBJECTS[kind]
    return made(*(_value(kind, column, said) for column in _COLUMNS[made]))


def _value(kind: str, column: _Column, said: dict[str, Any]) -> Any:
    value = said.get(column.name)
    if column.holds == "json":
        value = said.get(column.name + _AS_TEXT) if value is None else _json_text(kind, column, value)
    if value is None:
        if column.required:
            raise ValueError(f"a {kind} needs {column.name}")
        return None
    return _TAKEN[column.holds](f"{column.name} of a {kind}", value)


def _json_text(kind: str, column: _Column, value: Any) -> str:
    """The value as it is stored. Raises `ValueError` for one that could not be written, or not be read again."""
    text = dumps(value)
    if text.count("[") + text.count("{") > _DEEPEST and is_deeper(value, _DEEPEST):
        raise ValueError(f"{column.name} of a {kind} is nested more than {_DEEPEST} deep")
    return text


def is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than so deep."""
    level = [value]
    for _ in range(depth + 1):
        inner = [
            each.values() if isinstance(each, dict) else each
            for each in level
            if isinstance(each, (dict, list))
        ]
        level = [each for container in inner for each in container]
        if not level:
            return False
    return True


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is a text")
    return value


def whole(name: str, value: Any) -> int:
    """The value, if it is an integer of 64 bits. Raises `ValueError`."""
    if type(value) is not int:
        raise ValueError(f"{name} is an integer")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is an integer of 64 bits")
    return value


def count(name: str, value: Any, most: int = MOST) -> int:
    """The value, if it is a number of tokens or frames, or one of them. Raises `ValueError`."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} is an integer from 0 to {most}")
    return value


def offset(name: str, value: Any) -> int:
    """The value, if it is a time in a run, in microseconds. Raises `ValueError`."""
    if type(value) is not int or abs(value) >= MAX_OFFSET:
        raise ValueError(f"{name} is an integer of microseconds, less than {MAX_OFFSET}")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{name} is a number")
    return float(value)


def moment(name: str, value: Any) -> datetime:
    """The value as an aware datetime in UTC. Raises `ValueError`."""
    try:
        found = parse_iso(_text(name, value))
        if found.tzinfo is None:
            raise ValueError("it has no time zone")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # in UTC it may be before the year 1
        raise ValueError(f"{name} is no time: {error}") from error


_TAKEN: Mapping[str, Callable[[str, Any], Any]] = {
    "str": _text,
    "json": _text,
    "int": whole,
    "float": _number,
    "datetime": moment,
}


class Proof:
    """What the tokens and the frames of a run add up to, to be written behind them and compared there."""

    def __init__(self) -> None:
        self.tokens = self.frames = 0
        self._tokens_hash, self._frames_hash = hashlib.sha256(), hashlib.sha256()

    def add_segment(self, row: SegmentRow) -> None:
        """The stored texts joined by commas are what a run's `sha256` runs over, too."""
        separator = b"," if self.tokens else b""
        self._tokens_hash.update(separator + row.deltas[1:-1].encode())
        self.tokens += row.count

    def add_frames(self, count: int, data: bytes) -> None:
        """Some frames joined; of a row that cannot be read, its bytes as they are stored."""
        self._frames_hash.update(data)
        self.frames += count

    def said(self) -> dict[str, Any]:
        """For the line behind a run."""
        return {
            "tokens": self.tokens,
            "sha256": self._tokens_hash.hexdigest(),
            "frames": self.frames,
            "frames_sha256": self._frames_hash.hexdigest(),
        }
