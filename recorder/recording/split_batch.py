"""Splits the rows of one run, or of one addition, into two parts that are stored one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from recorder.storage.batch import Addition, Part

T = TypeVar("T")


def halved(part: Part) -> tuple[Part, Part] | None:
    """Two parts with half of the rows each, in the order to store them; None if there are not two rows."""
    if isinstance(part, Addition):
        return _addition_halved(part)
    if rows_in(part) < 2:
        return None
    left = rows_in(part) // 2
    messages, left = _cut(part.messages, left)
    segments, left = _cut(part.segments, left)
    frames, left = _cut(part.frames, left)
    gaps, left = _cut(part.gaps, left)
    # The run's own row is stored after the messages of its request, and its end after everything else.
    opens = part.opens and not messages[1]
    size, tokens = part.bytes // 2, sum(row.count for row in segments[0]) if part.tokens else 0
    first = replace(
        part, opens=opens, messages=messages[0], segments=segments[0], frames=frames[0], gaps=gaps[0],
        seal=None, unserialized=0, tokens=tokens, bytes=size,
    )  # fmt: skip
    second = replace(
        part, opens=part.opens and not opens, messages=messages[1], segments=segments[1], frames=frames[1],
        gaps=gaps[1], tokens=part.tokens - tokens, bytes=part.bytes - size,
    )  # fmt: skip
    return first, second


def rows_in(part: Part) -> int:
    """How many rows a part has that can be stored one after the other. Its own row comes with the first, its end with
    the last."""
    if isinstance(part, Addition):
        return len(part.messages) + len(part.annotations)
    return len(part.messages) + len(part.segments) + len(part.frames) + len(part.gaps)


def _addition_halved(part: Addition) -> tuple[Part, Part] | None:
    if rows_in(part) < 2:
        return None
    messages, left = _cut(part.messages, rows_in(part) // 2)
    annotations, _ = _cut(part.annotations, left)
    size, first_half = part.bytes // 2, max(0, len(part.added) - len(messages[1]))
    added = part.added.cut(first_half)
    first = replace(part, added=added[0], messages=messages[0], annotations=annotations[0], bytes=size)
    second = replace(
        part, added=added[1], messages=messages[1], annotations=annotations[1], details={},
        bytes=part.bytes - size,
    )  # fmt: skip
    return first, second


def _cut(rows: Sequence[T], count: int) -> tuple[tuple[list[T], list[T]], int]:
    """The first `count` rows and the others, and how many of `count` remain for the next kind of rows."""
    return ([*rows[:count]], [*rows[count:]]), max(0, count - len(rows))
