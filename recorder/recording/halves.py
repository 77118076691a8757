"""What is stored of one run or one addition, as two parts that are stored one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from recorder.storage.rows import Addition, Part

T = TypeVar("T")


def halved(part: Part) -> tuple[Part, Part] | None:
    """Each with half of the rows, in the order in which they are to be stored; None where there is only one."""
    if isinstance(part, Addition):
        return _addition_halved(part)
    count = len(part.messages) + len(part.segments) + len(part.frames)
    if count < 2:
        return None
    left = count // 2
    messages, left = _cut(part.messages, left)
    segments, left = _cut(part.segments, left)
    frames, left = _cut(part.frames, left)
    # The run's own row comes after its request, and its end after everything.
    opens = part.opens and not messages[1]
    size, tokens = part.bytes // 2, sum(row.count for row in segments[0]) if part.tokens else 0
    first = replace(
        part, opens=opens, messages=messages[0], segments=segments[0], frames=frames[0], gaps=(), seal=None,
        unpacked=0, tokens=tokens, bytes=size,
    )  # fmt: skip
    second = replace(
        part, opens=part.opens and not opens, messages=messages[1], segments=segments[1], frames=frames[1],
        tokens=part.tokens - tokens, bytes=part.bytes - size,
    )  # fmt: skip
    return first, second


def _addition_halved(part: Addition) -> tuple[Part, Part] | None:
    if len(part.messages) < 2:
        return None
    middle, size = len(part.messages) // 2, part.bytes // 2
    first_half = max(0, len(part.added) - (len(part.messages) - middle))
    first = replace(part, added=part.added[:first_half], messages=part.messages[:middle], bytes=size)
    second = replace(
        part, added=part.added[first_half:], messages=part.messages[middle:], bytes=part.bytes - size
    )
    return first, second


def _cut(rows: Sequence[T], left: int) -> tuple[tuple[list[T], list[T]], int]:
    """So many of the rows and the others, and how many are left to be taken of what comes after them."""
    return ([*rows[:left]], [*rows[left:]]), max(0, left - len(rows))
