"""A block of bytes that holds the frames of one row: a line with their times and sizes, then the frames joined.

The first line is JSON, `[at_us, size, later_us, size, ...]`. The first frame has its offset from the start of the run
(microseconds) and its size (bytes). Each further frame has the microseconds since the frame before it, and its size. In
the block these numbers are compressed with the frames and take a third of the bytes that columns would take.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from recorder.errors import StoreError

#: The longest first line that is read (bytes). A row that recorder writes has a thousand frames at most.
MAX_NUMBERS = 2**20
#: The limit of an offset (microseconds), 570 years. Beyond it the block is damaged.
MAX_OFFSET = 2**54


def join(frames: Sequence[bytes], at_us: Sequence[int]) -> bytes:
    """One block of the frames; `at_us` are their offsets in microseconds."""
    numbers: list[int] = []
    before = 0
    for frame, at in zip(frames, at_us, strict=True):
        numbers += (at - before, len(frame))
        before = at
    return b"".join((orjson.dumps(numbers), b"\n", *frames))


def split(block: bytes) -> list[tuple[int, bytes]]:
    """The offset (microseconds) and the bytes of each frame. Raises `StoreError` for a damaged block."""
    end = block.find(b"\n", 0, MAX_NUMBERS)
    try:
        if end < 0:
            raise ValueError(f"its first {MAX_NUMBERS} bytes have no newline")
        return _split(orjson.loads(block[:end]), block, end + 1)
    except (ValueError, TypeError, LookupError) as error:
        raise StoreError(f"A stored block of frames is damaged ({error}); the row cannot be read") from error


def _split(numbers: list[int], block: bytes, start: int) -> list[tuple[int, bytes]]:
    """The frames after the first line. Raises `ValueError`, `TypeError` or `LookupError` for damaged numbers."""
    if not isinstance(numbers, list) or not set(map(type, numbers)) <= {int}:
        raise ValueError("its first line is not a list of integers")
    sizes = numbers[1::2]
    if min(sizes, default=0) < 0 or sum(sizes) != len(block) - start:
        # A negative size would read the same bytes again and again and fill the memory.
        raise ValueError(f"its frames have {len(block) - start} bytes and not {sum(sizes)}")
    found, at = [], 0
    for later, size in zip(numbers[::2], sizes, strict=True):
        at += later
        found.append((at, block[start : start + size]))
        start += size
    if not all(abs(at) < MAX_OFFSET for at, _ in found):
        raise ValueError("its times are out of range")
    return found
