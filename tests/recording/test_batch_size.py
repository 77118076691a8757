"""How much is stored at once: less after a batch that took too long, more again when it goes quickly."""

from __future__ import annotations

import pytest

from recorder.recording.batch_size import SMALLEST, BatchSize

MOST = 16 * 2**20


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says, the last of these."""
    found = [0.0]
    monkeypatch.setattr("recorder.recording.batch_size.seconds", lambda: found[-1])
    return found


def test_it_is_halved_from_what_took_too_long(moments: list[float]) -> None:
    """A small batch that was given up says more than the bound does; below 64 KiB it makes no sense."""
    size = BatchSize(MOST)
    assert (size.now, size.is_reduced) == (MOST, False)
    moments.append(30)
    size.halve(4 * 2**20, began=0)
    assert (size.now, size.is_reduced) == (2 * 2**20, True)
    size.halve(100, began=0)
    assert size.now == SMALLEST


def test_it_grows_after_what_went_through_quickly(moments: list[float]) -> None:
    """And stays after what went through in half the time: twice as much would not."""
    size = BatchSize(MOST)
    moments.append(30)
    size.halve(MOST, began=0)
    size.halve(MOST, began=0)
    assert size.now == MOST // 4
    moments.append(115)
    size.grow(began=100)
    assert size.now == MOST // 4
    size.grow(began=110)
    size.grow(began=110)
    assert (size.now, size.is_reduced) == (MOST, False)
    size.grow(began=110)
    assert size.now == MOST


def test_what_was_cancelled_at_once_says_little(moments: list[float]) -> None:
    """An administrator cancels a statement that had just begun: later ones need not be quicker than that."""
    size = BatchSize(MOST)
    moments.append(0.001)
    size.halve(MOST, began=0)
    moments.append(0.201)
    size.grow(began=0.001)
    assert size.now == MOST
