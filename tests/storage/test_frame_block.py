"""A block of frames is read back as it was written, and a damaged one is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.errors import StoreError
from recorder.storage.frame_block import join, split


@given(st.lists(st.tuples(st.integers(0, 10**12), st.binary(max_size=50))))
def test_split_returns_the_frames_and_times_that_were_joined(frames: list[tuple[int, bytes]]) -> None:
    """Frames may have any bytes, line ends among them, or none."""
    assert split(join([data for _, data in frames], [at for at, _ in frames])) == frames


def test_a_block_is_a_line_of_numbers_and_the_frames() -> None:
    """This is the format that is stored."""
    assert join([b"data: a\n\n", b": b\n\n"], [1_000, 1_250]) == b"[1000,9,250,5]\ndata: a\n\n: b\n\n"


@pytest.mark.parametrize(
    "block",
    [
        b"", b"[1", b"[1]\nx", b"[1,2]\nx", b"[1,1]\nxy", b'["a",1]\nx', b"{}", b"{}\n", b"[0,2,0,-1]\nx",
        b"[0,1.0]\nx", b"[0,true]\nx", b"[18014398509481984,1]\nx", b"[0,[]]\n",
        b"[" + b"0,0," * 2**18 + b"0,0]\n", b"[" * 5_000 + b"]" * 5_000 + b"\n",
    ],
    ids=range(15),
)  # fmt: skip
def test_a_damaged_block_is_an_error(block: bytes) -> None:
    """It is too short or too long, has wrong sizes, times or nesting, or is no block at all."""
    with pytest.raises(StoreError, match="damaged"):
        split(block)


def test_a_block_with_negative_sizes_is_an_error() -> None:
    """Sizes that go back would make gigabytes of frames from a few kilobytes."""
    size = 2**20
    numbers = ",".join(f"0,{size},0,{-size}" for _ in range(10_000)).encode()
    with pytest.raises(StoreError, match="damaged"):
        split(b"[" + numbers + b"]\n")
