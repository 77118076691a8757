"""Whether rows or the database are the cause, by what kind of failure came how often, and by trials with other rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from recorder.recording import failure_cause
from recorder.recording.failure_cause import FailureCause
from recorder.storage.batch import Part, RunRows
from recorder.storage.failures import Failure
from recorder.storage.rows import SegmentRow
from tests.oracle import run_start

ERROR = RuntimeError("cannot do it")
ROW = RunRows(run_start(), opens=False, segments=[SegmentRow("r", 0, 1, "x" * 70)])
TWO_ROWS = RunRows(run_start(), opens=False, segments=[SegmentRow("r", seq, 1, "x") for seq in range(2)])


class Clock:
    """A clock that a test moves on."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    found = Clock()
    monkeypatch.setattr(failure_cause, "seconds", found)
    return found


def answers(
    failures: Sequence[Failure], trials: Sequence[bool], batch: Sequence[Part] = (ROW,), *, had_longest: bool = True,
    blamed: dict[str, float] | None = None, clock: Clock | None = None, after: float = 0.0,
) -> tuple[list[bool], list[int]]:  # fmt: skip
    """Whether the rows are the cause after each failure, and the size of each trial. `after` each failure the clock
    goes on by so many seconds."""
    results, sizes = list(trials), list[int]()

    async def stores_other_rows(size: int) -> bool:
        sizes.append(size)
        return results.pop(0)

    async def story() -> list[bool]:
        cause, found = FailureCause(batch, stores_other_rows, {} if blamed is None else blamed), list[bool]()
        for failure in failures:
            found.append(await cause.is_rows(failure, ERROR, had_longest=had_longest))
            if clock is not None:
                clock.now += after
        return found

    return asyncio.run(story()), sizes


def test_rows_that_are_refused() -> None:
    """At once for an error that blames rows, the second time for another one; and only if others are stored."""
    assert answers(["poison"] * 2, [False, True]) == ([False, True], [0, 0])
    assert answers(["refused", "fatal", "refused"], [False, True]) == ([False, False, True], [0, 0])
    assert answers(["poison"], [], [ROW, TWO_ROWS]) == ([True], [])


def test_a_connection_that_is_lost() -> None:
    """However often, no trial is made."""
    assert answers(["transient"] * 9, []) == ([False] * 9, [])


def test_an_outage_is_taken_for_one_for_minutes() -> None:
    """Though other rows of the same size are stored: the lock may be on these rows only."""
    assert answers(["doubtful"] * 9, [True] * 8) == ([False] * 9, [71] * 8)


def test_what_looks_like_an_outage_for_too_long(clock: Clock) -> None:
    """After three trials in a row that went well, the first of them five minutes ago."""
    found, _ = answers(["doubtful"] * 7, [True, True, False, True, True, True], clock=clock, after=150)
    assert found == [False] * 6 + [True]


def test_an_error_that_was_blamed_lately_needs_half_a_minute(clock: Clock) -> None:
    """Not less, since somebody may lock a row for an instant. Each use counts for ten more minutes."""
    blamed: dict[str, float] = {}
    assert answers(["doubtful"] * 5, [True] * 4, blamed=blamed, clock=clock, after=100)[0][-1]
    assert not any(answers(["doubtful"] * 9, [True] * 8, blamed=blamed, clock=clock, after=4)[0])
    for _ in range(3):
        clock.now += 400
        found, _ = answers(["doubtful"] * 4, [True] * 3, blamed=blamed, clock=clock, after=15)
        assert found == [False] * 3 + [True]


def test_an_error_that_was_blamed_long_ago_is_taken_for_an_outage(clock: Clock) -> None:
    """A row that is locked a day later waits five minutes again."""
    blamed = {"RuntimeError": clock.now}
    clock.now += 86_400
    found, _ = answers(["doubtful"] * 8, [True] * 7, blamed=blamed, clock=clock, after=60)
    assert found == [False] * 6 + [True] * 2


def test_a_row_without_the_longest_time_blames_no_error(clock: Clock) -> None:
    """It is tried with more time first, and says nothing about other rows."""
    blamed: dict[str, float] = {}
    found, _ = answers(["slow"] * 9, [True] * 8, had_longest=False, blamed=blamed, clock=clock, after=100)
    assert (found, blamed) == ([False] * 9, {})


def test_several_parts_are_separated_early() -> None:
    """Which costs nothing, so it waits for one trial only."""
    assert answers(["doubtful"] * 2, [True], [ROW, TWO_ROWS]) == ([False, True], [75])


def test_a_row_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it had the longest time, and small rows get through; two rows are split instead."""
    monkeypatch.setattr(failure_cause, "SUSPECT_AFTER", 0)
    assert answers(["slow"] * 4, [True] * 3) == ([False] * 3 + [True], [0] * 3)
    assert answers(["slow"] * 4, [True] * 3, had_longest=False)[0] == [False] * 4
    assert answers(["slow"] * 4, [], [TWO_ROWS]) == ([False] * 4, [])
