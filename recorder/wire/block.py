"""Frames that are stored together, as one block of bytes: when each came, how long it is, and all of them joined.

The first line is JSON, `[at_us, size, later_us, size, ...]`: the first frame's offset in microseconds and its size in
bytes, then how much later each came than the one before and its size. In the block, and so compressed with the
frames, these numbers take a third of what they took in columns of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from recorder.errors import StoreError


def join(frames: Sequence[bytes], at_us: Sequence[int]) -> bytes:
    """One block of them; `at_us` are their offsets, in microseconds."""
    numbers: list[int] = []
    before = 0
    for frame, at in zip(frames, at_us, strict=True):
        numbers += (at - before, len(frame))
        before = at
    return b"".join((orjson.dumps(numbers), b"\n", *frames))


def split(block: bytes) -> list[tuple[int, bytes]]:
    """Offset and bytes of each frame. Raises `StoreError` for a block that is damaged."""
    head, _, rest = block.partition(b"\n")
    try:
        numbers = orjson.loads(head)
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        found, at, start = [], 0, 0
        for later, size in pairs:
            at += later
            found.append((at, rest[start : start + size]))
            start += size
    except (ValueError, TypeError, LookupError) as error:
        raise StoreError(f"A stored block of frames is damaged ({error}); the row cannot be read") from error
    if start != len(rest):
        raise StoreError(f"A stored block of frames has {len(rest)} bytes, not {start}; the row is damaged")
    return found
