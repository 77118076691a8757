"""When each piece of a replay is due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from recorder.errors import ConfigError
from recorder.replay.pace import Options, Pace


def due(at_us: list[int], **options: Any) -> list[float]:
    """Seconds at which pieces of these offsets are due."""
    pace = Pace(Options(**options))
    return [pace.due(at) for at in at_us]


def test_as_it_was_the_first_wait_included() -> None:
    """Each at its own offset."""
    assert due([500_000, 600_000, 600_000, 2_000_000]) == [0.5, 0.6, 0.6, 2.0]


@pytest.mark.parametrize(
    ("speed", "expected"), [(2.0, [0.25, 1.0]), (0.1, [5.0, 20.0]), (1000, [0.0005, 0.002])]
)
def test_faster_and_slower(speed: float, expected: list[float]) -> None:
    """All waits in proportion."""
    assert due([500_000, 2_000_000], speed=speed) == pytest.approx(expected)


def test_long_silences_are_cut() -> None:
    """The first wait too; what comes after moves up, and short waits stay as they were."""
    assert due([5_000_000, 5_100_000, 9_000_000, 9_050_000], max_gap=0.2) == pytest.approx(
        [0.2, 0.3, 0.5, 0.55]
    )
    assert due([5_000_000, 6_000_000], max_gap=0) == [0, 0]


def test_silences_are_of_the_recording() -> None:
    """At twice the speed half a second of it takes a quarter."""
    assert due([5_000_000, 6_000_000], max_gap=0.5, speed=2) == pytest.approx([0.25, 0.5])


def test_a_token_in_the_middle_is_due_at_once() -> None:
    """Begun with a number there is nothing to wait for; begun with a time there is what is left of the wait."""
    assert due([3_000_000, 3_200_000], start=7) == pytest.approx([0.0, 0.2])
    assert due([3_000_000, 3_200_000], start=2.5) == pytest.approx([0.5, 0.7])
    assert due([3_000_000], start=timedelta(seconds=2)) == [1.0]


def test_places_are_numbers_or_times() -> None:
    """An int is a token, a float or a timedelta a time."""
    by_number, by_time = Options(start=3, until=9), Options(start=1.5, until=timedelta(milliseconds=2500))
    assert (by_number.first_token, by_number.end_token, by_number.start_us, by_number.until_us) == (
        3,
        9,
        None,
        None,
    )
    assert (by_time.first_token, by_time.end_token, by_time.start_us, by_time.until_us) == (
        0,
        None,
        1_500_000,
        2_500_000,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 0}, r"speed is 0; choose 0\.1 to 1000, or None for as fast as possible"),
        ({"speed": -1}, "speed is -1"),
        ({"speed": 0.05}, "choose 0.1"),
        ({"speed": 1001}, "to 1000"),
        ({"speed": float("nan")}, "speed is nan"),
        ({"speed": "fast"}, "speed is 'fast'"),
        ({"max_gap": -0.1}, r"max_gap is -0\.1; it must be seconds, zero or more"),
        ({"start": -1}, "start is -1; pass a token's number"),
        ({"until": float("inf")}, "until is inf"),
        ({"start": "2s"}, "start is '2s'"),
        ({"start": True}, "start is True"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    """Named, with what to pass instead."""
    with pytest.raises(ConfigError, match=message):
        Options(**options)
