"""`Pace` decides when each token or frame of a replay is due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from recorder.errors import ConfigError
from recorder.replay.pace import Options, Pace


def due(at_us: list[int], **options: Any) -> list[float]:
    """Return the seconds at which pieces with these offsets are due."""
    pace = Pace(Options(**options))
    return [pace.due(at) for at in at_us]


def test_pieces_are_due_at_their_recorded_offsets() -> None:
    """The wait for the first piece is kept, too."""
    assert due([500_000, 600_000, 600_000, 2_000_000]) == [0.5, 0.6, 0.6, 2.0]


@pytest.mark.parametrize(
    ("speed", "expected"), [(2.0, [0.25, 1.0]), (0.1, [5.0, 20.0]), (1000, [0.0005, 0.002])]
)
def test_speed_divides_all_waits(speed: float, expected: list[float]) -> None:
    """At speed 2 each wait is half as long."""
    assert due([500_000, 2_000_000], speed=speed) == pytest.approx(expected)


def test_max_gap_shortens_long_waits() -> None:
    """The first wait counts, too; later pieces are due earlier, and shorter waits are unchanged."""
    assert due([5_000_000, 5_100_000, 9_000_000, 9_050_000], max_gap=0.2) == pytest.approx(
        [0.2, 0.3, 0.5, 0.55]
    )
    assert due([5_000_000, 6_000_000], max_gap=0) == [0, 0]


def test_max_gap_is_measured_in_recorded_time() -> None:
    """At speed 2 a `max_gap` of 0.5 s takes 0.25 s."""
    assert due([5_000_000, 6_000_000], max_gap=0.5, speed=2) == pytest.approx([0.25, 0.5])


def test_a_start_by_number_is_due_at_once_and_a_start_by_time_is_not() -> None:
    """A start by time waits for the rest of the recorded pause."""
    assert due([3_000_000, 3_200_000], start=7) == pytest.approx([0.0, 0.2])
    assert due([3_000_000, 3_200_000], start=2.5) == pytest.approx([0.5, 0.7])
    assert due([3_000_000], start=timedelta(seconds=2)) == [1.0]


def test_an_int_is_a_token_and_a_float_or_timedelta_is_a_time() -> None:
    """This holds for `start` and `until`."""
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
def test_invalid_options_of_a_pace_are_refused(options: dict[str, Any], message: str) -> None:
    """The error names the option and what to pass instead."""
    with pytest.raises(ConfigError, match=message):
        Options(**options)
