"""Blocks of frames: what goes in comes out, and damage is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.errors import StoreError
from recorder.wire.block import join, split


@given(st.lists(st.tuples(st.integers(0, 10**12), st.binary(max_size=50))))
def test_frames_and_their_times_come_back(frames: list[tuple[int, bytes]]) -> None:
    """Whatever is in them, line ends and nothing at all included."""
    assert split(join([data for _, data in frames], [at for at, _ in frames])) == frames


def test_a_block_is_a_line_of_numbers_and_the_frames() -> None:
    """The format, as it is stored."""
    assert join([b"data: a\n\n", b": b\n\n"], [1_000, 1_250]) == b"[1000,9,250,5]\ndata: a\n\n: b\n\n"


@pytest.mark.parametrize("block", [b"", b"[1", b"[1]\nx", b"[1,2]\nx", b"[1,1]\nxy", b'["a",1]\nx', b"{}"])
def test_a_damaged_block_is_an_error(block: bytes) -> None:
    """Cut short, cut long, or no block at all."""
    with pytest.raises(StoreError, match="damaged"):
        split(block)
