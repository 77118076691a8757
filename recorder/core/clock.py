"""Time: one wall clock for people, one monotonic clock for offsets."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The wall clock, aware, in UTC."""
    return datetime.now(UTC)


def monotonic_us() -> int:
    """Microseconds on a clock that never jumps; only differences mean anything."""
    return time.perf_counter_ns() // 1000


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with six decimals and `Z`, so that text sorts as time does."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:26] + "Z"  # a quarter of the time of strftime


def parse_iso(text: str) -> datetime:
    """The aware datetime that `iso` wrote."""
    return datetime.fromisoformat(text)
