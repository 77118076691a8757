"""When each piece is due: at its own pace, faster, slower, without long silences. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from recorder.errors import ConfigError

#: A place in a run: a token's number (an int), or a time since the request (seconds as a float, or a timedelta).
Place = int | float | timedelta

SLOWEST, FASTEST = 0.1, 1000.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to play. Raises `ConfigError` for what cannot be."""

    #: 1 is as it was, 2 twice as fast; None as fast as possible.
    speed: float | None = 1.0
    #: The longest silence, in seconds of the recording; None for as it was.
    max_gap: float | None = None
    #: Where to begin, and where to end (not played any more).
    start: Place | None = None
    until: Place | None = None
    #: Whether to go on into a run that still streams.
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
        """The number of the first token to play, where it is given so."""
        return self.start if isinstance(self.start, int) else 0

    @property
    def end_token(self) -> int | None:
        """The number of the first token that is not played, where it is given so."""
        return self.until if isinstance(self.until, int) else None

    @property
    def start_us(self) -> int | None:
        """The offset from which on to play, in microseconds, where it is given so."""
        return microseconds(self.start)

    @property
    def until_us(self) -> int | None:
        """The offset from which on nothing is played, in microseconds, where it is given so."""
        return microseconds(self.until)


def microseconds(place: Place | None) -> int | None:
    """A place given as a time; None for one given as a number."""
    if isinstance(place, timedelta):
        return place // timedelta(microseconds=1)
    return round(place * 1e6) if isinstance(place, float) else None


class Pace:
    """Says when a piece is due, in seconds since the replay began; pieces come in order.

    Each is due at its own offset, not after the one before: an error of one wait is none of the next.
    """

    def __init__(self, options: Options) -> None:
        self._scale = 1e6 * (options.speed or 1.0)
        self._longest = None if options.max_gap is None else round(options.max_gap * 1e6)
        #: Microseconds of the recording that are left out so far; None before the first piece of a cut recording.
        self._skipped: int | None = 0 if options.start is None else options.start_us
        self._before = options.start_us or 0

    def due(self, at_us: int) -> float:
        """Seconds since the replay began."""
        if self._skipped is None:  # begins with a token in the middle: that one is due now
            self._skipped = self._before = at_us
        if self._longest is not None and at_us - self._before > self._longest:
            self._skipped += at_us - self._before - self._longest
        self._before = max(at_us, self._before)
        return (at_us - self._skipped) / self._scale


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _is_place(value: object) -> bool:
    if isinstance(value, timedelta):
        return value >= timedelta()
    return _is_number(value) and float("inf") > value >= 0  # type: ignore[operator]
