"""The two clocks: a wall clock for timestamps and a monotonic clock for durations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson

#: The length of what `iso` returns.
_ISO_LENGTH = len("2026-11-21T00:00:00.000000Z")


def now() -> datetime:
    """The wall clock: a timezone-aware datetime in UTC."""
    return datetime.now(UTC)


def monotonic_us() -> int:
    """Microseconds of the monotonic clock. Only the difference of two readings has a meaning."""
    return time.perf_counter_ns() // 1000


def begun(started_us: object) -> tuple[datetime, int]:
    """A time in the past, given by the monotonic clock, on both clocks. Now for what is no such time."""
    moment, moment_us = now(), monotonic_us()
    if type(started_us) is not int or not 0 < started_us <= moment_us:
        return moment, moment_us
    return moment - timedelta(microseconds=moment_us - started_us), started_us


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with six decimals and `Z`, so that the order of the texts is the order of the times."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:26] + "Z"  # four times as fast as strftime


def iso_each(moments: Sequence[datetime | None]) -> list[str | None]:
    """What `iso` returns for each of them; None for None. Takes a fifth of the time."""
    try:
        texts: list[str | None] = orjson.loads(orjson.dumps(moments, option=orjson.OPT_UTC_Z))
    except TypeError:  # a time zone that orjson does not know
        return [None if moment is None else iso(moment) for moment in moments]
    # orjson leaves out decimals that are zero, and writes other time zones as they are.
    return [
        text if moment is None or (text is not None and len(text) == _ISO_LENGTH) else iso(moment)
        for moment, text in zip(moments, texts, strict=True)
    ]


def parse_iso(text: str) -> datetime:
    """The aware datetime that `iso` wrote."""
    return datetime.fromisoformat(text)
