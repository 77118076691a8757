"""The rows that are written as JSON objects, and the types of their columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from recorder.core.clock import iso, parse_iso
from recorder.core.json import dumps, loads
from recorder.storage.columns import Column, columns_of
from recorder.storage.frame_block import MAX_OFFSET
from recorder.storage.rows import (
    AnnotationRow,
    ContextMessageRow,
    ConversationRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunRow,
    SegmentRow,
)
from recorder.storage.stored_messages import hash_of_row

FORMAT = "recorder"
VERSION = 2
#: The most tokens or frames that a run may have. The sum of two such numbers still fits into 64 bits.
MOST = 2**62
#: The deepest nesting of JSON that is read. Python and the databases can write and read a little more.
_DEEPEST = 500

#: A row of any table.
Row = (
    ConversationRow
    | Producer
    | MessageRow
    | ContextMessageRow
    | RunRow
    | SegmentRow
    | FrameRow
    | GapRow
    | AnnotationRow
)

#: Kind of a line -> the row that it holds as an object.
OBJECTS: Mapping[str, type[Any]] = {
    "conversation": ConversationRow,
    "producer": Producer,
    "message": MessageRow,
    "context": ContextMessageRow,
    "run": RunRow,
    "annotation": AnnotationRow,
}
KINDS: Mapping[type[Any], str] = {row_type: kind for kind, row_type in OBJECTS.items()}

#: A column that is not exported: reading computes it.
_DERIVED = "content_hash"
#: Suffix of a column's name if its JSON is exported as text, because encoding it again would change the text.
_AS_TEXT = ":text"


def object_of(row: Any) -> dict[str, Any]:
    """The columns of a row that are not NULL, by name."""
    found: dict[str, Any] = {}
    for column in columns_of(row.__class__):
        value = getattr(row, column.name)
        if value is None or column.name == _DERIVED:
            continue
        if column.type is datetime:
            found[column.name] = iso(value)
        elif column.format == "json":
            found |= _json(column.name, value)
        else:
            found[column.name] = value
    return found


def _json(name: str, text: str) -> dict[str, Any]:
    """The column as a JSON value if encoding it gives the same text, as for all that recorder wrote; else as text."""
    try:
        value = loads(text)
    except ValueError:
        return {name + _AS_TEXT: text}
    return {name: value} if value is not None and dumps(value) == text else {name + _AS_TEXT: text}


def row_of(kind: str, fields: Any) -> Any:
    """The row of an object that `object_of` made. Raises `ValueError`; unknown fields are ignored."""
    if not isinstance(fields, dict):
        raise ValueError(f"a {kind} must be an object")
    row_type: Any = OBJECTS[kind]
    row = row_type(*(_value(kind, column, fields) for column in columns_of(row_type)))
    return row._replace(content_hash=hash_of_row(row)) if row_type is MessageRow else row


def _value(kind: str, column: Column, fields: dict[str, Any]) -> Any:
    value = fields.get(column.name) if column.name != _DERIVED else None
    if column.format == "json":
        value = fields.get(column.name + _AS_TEXT) if value is None else _json_text(kind, column, value)
    if value is None:
        if not column.is_nullable:
            raise ValueError(f"a {kind} needs {column.name}")
        return None
    return _READERS[column.type](f"{column.name} of a {kind}", value)


def _json_text(kind: str, column: Column, value: Any) -> str:
    """The value as stored text. Raises `ValueError` if it is nested too deeply to be written and read again."""
    text = dumps(value)
    if text.count("[") + text.count("{") > _DEEPEST and is_deeper(value, _DEEPEST):
        raise ValueError(f"{column.name} of a {kind} is nested more than {_DEEPEST} levels deep")
    return text


def is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested in more than `depth` levels."""
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
        raise ValueError(f"{name} must be text")
    return value


def integer(name: str, value: Any) -> int:
    """The value, if it is an integer of at most 64 bits. Raises `ValueError`."""
    if type(value) is not int:
        raise ValueError(f"{name} must be an integer")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must be an integer of 64 bits")
    return value


def count(name: str, value: Any, most: int = MOST) -> int:
    """The value, if it can be a count or the number of a token or frame. Raises `ValueError`."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} must be an integer from 0 to {most}")
    return value


def offset(name: str, value: Any) -> int:
    """The value, if it is an offset in a run, in microseconds. Raises `ValueError`."""
    if type(value) is not int or abs(value) >= MAX_OFFSET:
        raise ValueError(f"{name} must be an integer of microseconds, less than {MAX_OFFSET}")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{name} must be a number")
    return float(value)


def moment(name: str, value: Any) -> datetime:
    """The value as an aware datetime in UTC. Raises `ValueError`."""
    try:
        found = parse_iso(_text(name, value))
        if found.tzinfo is None:
            raise ValueError("it has no time zone")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # in UTC the time may be before the year 1
        raise ValueError(f"{name} is not a time: {error}") from error


_READERS: Mapping[type[Any], Callable[[str, Any], Any]] = {
    str: _text,
    int: integer,
    float: _number,
    datetime: moment,
}


class Checksums:
    """Counts and SHA-256 hashes of a run's tokens and frames: written after the run, and compared at import."""

    def __init__(self) -> None:
        self.tokens = self.frames = 0
        self._tokens_hash, self._frames_hash = hashlib.sha256(), hashlib.sha256()

    def add_segment(self, row: SegmentRow) -> None:
        """Add a row of tokens. The hash is the run's `sha256`: over the stored texts, joined by commas."""
        separator = b"," if self.tokens else b""
        self._tokens_hash.update(separator + row.deltas[1:-1].encode())
        self.tokens += row.count

    def add_frames(self, count: int, data: bytes) -> None:
        """Add `count` frames, joined; for a row that cannot be read, its stored bytes."""
        self._frames_hash.update(data)
        self.frames += count

    def fields(self) -> dict[str, Any]:
        """The fields of the line that ends a run."""
        return {
            "tokens": self.tokens,
            "sha256": self._tokens_hash.hexdigest(),
            "frames": self.frames,
            "frames_sha256": self._frames_hash.hexdigest(),
        }
