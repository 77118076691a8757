"""Frames that are stored together, as one block of bytes: when each came, how long it is, and all of them joined.

The first line is JSON, `[at_us, size, later_us, size, ...]`: the first frame's offset in microseconds and its size in
bytes, then how much later each came than the one before and its size. In the block, and so compressed with the
frames, these numbers take a third of what they took in columns of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from recorder.errors import StoreError

#: Longest first line that is read (bytes). A row that recorder has written has a thousand frames.
MAX_NUMBERS = 2**20
#: Beyond 570 years (microseconds) an offset is none.
MAX_OFFSET = 2**54


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
    end = block.find(b"\n", 0, MAX_NUMBERS)
    try:
        if end < 0:
            raise ValueError(f"its first {MAX_NUMBERS} bytes have no line end")
        return _cut(orjson.loads(block[:end]), block, end + 1)
    except (ValueError, TypeError, LookupError) as error:
        raise StoreError(f"A stored block of frames is damaged ({error}); the row cannot be read") from error


def _cut(numbers: list[int], block: bytes, start: int) -> list[tuple[int, bytes]]:
    """The frames behind the first line. Raises what damaged numbers raise."""
    if not isinstance(numbers, list) or not set(map(type, numbers)) <= {int}:
        raise ValueError("its first line is no list of integers")
    sizes = numbers[1::2]
    if min(sizes, default=0) < 0 or sum(sizes) != len(block) - start:
        # Else one frame would be read again and again, which fills the memory.
        raise ValueError(f"its frames have {len(block) - start} bytes and not {sum(sizes)}")
    found, at = [], 0
    for later, size in zip(numbers[::2], sizes, strict=True):
        at += later
        found.append((at, block[start : start + size]))
        start += size
    if not all(abs(at) < MAX_OFFSET for at, _ in found):
        raise ValueError("its times are none")
    return found
