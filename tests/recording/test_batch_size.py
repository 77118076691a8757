"""The size of a batch becomes smaller after a batch that took too long, and larger again after quick ones."""

from __future__ import annotations

import pytest

from recorder.recording.batch_size import SMALLEST, BatchSize

MOST = 16 * 2**20


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times that the clock returns; the last one of them is the current time."""
    found = [0.0]
    monkeypatch.setattr("recorder.recording.batch_size.seconds", lambda: found[-1])
    return found


def test_the_size_becomes_half_of_the_batch_that_took_too_long(moments: list[float]) -> None:
    """The size of the given-up batch counts, not the limit; the size never becomes less than 64 KiB."""
    size = BatchSize(MOST)
    assert (size.now, size.is_reduced) == (MOST, False)
    moments.append(30)
    size.halve(4 * 2**20, began=0)
    assert (size.now, size.is_reduced) == (2 * 2**20, True)
    size.halve(100, began=0)
    assert size.now == SMALLEST


def test_the_size_doubles_after_a_quick_batch(moments: list[float]) -> None:
    """It stays after a batch that took half of the time, because twice as much would take too long."""
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


def test_a_batch_that_was_cancelled_at_once_lets_the_size_grow_again(moments: list[float]) -> None:
    """An administrator cancels a statement that had just begun; later batches may take longer than it did."""
    size = BatchSize(MOST)
    moments.append(0.001)
    size.halve(MOST, began=0)
    moments.append(0.201)
    size.grow(began=0.001)
    assert size.now == MOST
