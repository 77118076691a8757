"""Options of a replay, and the time at which each token or frame is due. Reads no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from recorder.errors import ConfigError

#: A place in a run: the number of a token (int), or the time since the request (float seconds, or timedelta).
Place = int | float | timedelta

SLOWEST, FASTEST = 0.1, 1000.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to play a run. Raises `ConfigError` for an invalid value."""

    #: 1 is the recorded speed, 2 twice as fast; None is as fast as possible.
    speed: float | None = 1.0
    #: The longest pause between two items, in seconds of the recording; longer ones are cut. None for no limit.
    max_gap: float | None = None
    #: The first place that is played, and the first that is not played any more.
    start: Place | None = None
    until: Place | None = None
    #: Whether to play on while the run still streams.
    follow: bool = False

    def __post_init__(self) -> None:
        if self.speed is not None and not (_is_number(self.speed) and SLOWEST <= self.speed <= FASTEST):
            raise ConfigError(
                f"speed is {self.speed!r}; choose {SLOWEST} to {FASTEST:g}, or None for as fast as possible"
            )
        if self.max_gap is not None and not (_is_number(self.max_gap) and self.max_gap >= 0):
            raise ConfigError(f"max_gap is {self.max_gap!r}; it must be seconds, zero or more, or None")
        for name, place in (("start", self.start), ("until", self.until)):
            if place is not None and not _is_place(place):
                raise ConfigError(
                    f"{name} is {place!r}; pass a token's number (an int), or seconds since the request (a float)"
                )

    @property
    def first_token(self) -> int:
        """The number of the first token to play; 0 if `start` is None or a time."""
        return self.start if isinstance(self.start, int) else 0

    @property
    def end_token(self) -> int | None:
        """The number of the first token that is not played; None if `until` is None or a time."""
        return self.until if isinstance(self.until, int) else None

    @property
    def start_us(self) -> int | None:
        """The first offset that is played, in microseconds; None if `start` is None or a number."""
        return microseconds(self.start)

    @property
    def until_us(self) -> int | None:
        """The first offset that is not played, in microseconds; None if `until` is None or a number."""
        return microseconds(self.until)


def microseconds(place: Place | None) -> int | None:
    """A place that is a time, in microseconds; None for any other."""
    if isinstance(place, timedelta):
        return place // timedelta(microseconds=1)
    return round(place * 1e6) if isinstance(place, float) else None


class Pace:
    """Computes due times, in seconds since the replay began. `due` is called in the order of the offsets.

    A due time depends on the item's own offset and not on the time of the item before it, so late sleeps do not add up.
    """

    def __init__(self, options: Options) -> None:
        self._scale = 1e6 * (options.speed or 1.0)
        self._longest = None if options.max_gap is None else round(options.max_gap * 1e6)
        #: Microseconds of the recording that were skipped so far; None before the first item if `start` is a number.
        self._skipped: int | None = 0 if options.start is None else options.start_us
        self._last_us = options.start_us or 0

    def due(self, at_us: int) -> float:
        """Seconds since the replay began."""
        if self._skipped is None:  # `start` is the number of a token: it is due now
            self._skipped = self._last_us = at_us
        if self._longest is not None and at_us - self._last_us > self._longest:
            self._skipped += at_us - self._last_us - self._longest
        self._last_us = max(at_us, self._last_us)
        return (at_us - self._skipped) / self._scale


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _is_place(value: object) -> bool:
    if isinstance(value, timedelta):
        return value >= timedelta()
    return _is_number(value) and float("inf") > value >= 0  # type: ignore[operator]
