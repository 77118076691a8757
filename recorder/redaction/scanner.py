"""Searches a text for all patterns at once: the first match counts, the longest one of several at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recorder.redaction import ready_made
from recorder.redaction.ready_made import ReadyMade
from recorder.redaction.user_pattern import UserPattern


class Match(NamedTuple):
    """What is replaced in a text."""

    start: int
    end: int
    #: The name of the pattern.
    name: str


class Scanner:
    """The patterns of one recorder. Has no state, so any number of threads may use it."""

    def __init__(self, patterns: Sequence[ReadyMade | UserPattern]) -> None:
        self._patterns = tuple(patterns)
        self._own = tuple(each for each in patterns if isinstance(each, UserPattern))
        #: Whether no pattern matches short words, and none a space behind one.
        self.passes_words = not self._own
        self._has_ready_made = len(self._own) < len(self._patterns)

    def scan(self, text: str, start: int, *, final: bool) -> tuple[int, Sequence[Match]]:
        """Up to where the text is decided from `start` on, and the matches in this part, in order.

        `final`: nothing comes after this text. Raises `TimeoutError`.
        """
        until = len(text) if final else self._undecided_from(text, start)
        if not self._own and not ready_made.may_match(text, start):
            return until, ()
        found: list[Match] = []
        nearest: list[tuple[int, int] | None] = [(-1, -1)] * len(self._patterns)
        while start < until and (match := self._first(text, start, nearest)) is not None:
            if match.start >= until:
                break
            found.append(match)
            start = match.end
            if start > until:
                until = self._undecided_from(text, start)
        return max(start, until), found

    def _first(self, text: str, start: int, nearest: list[tuple[int, int] | None]) -> Match | None:
        """The first match. `nearest` has the next one of each pattern, as far as it was searched for."""
        best: Match | None = None
        for number, pattern in enumerate(self._patterns):
            place = nearest[number]
            if place is not None and place[0] < start:
                place = nearest[number] = pattern.find(text, start)
            if place is not None and (best is None or (place[0], -place[1]) < (best.start, -best.end)):
                best = Match(*place, pattern.name)
        return best

    def _undecided_from(self, text: str, start: int) -> int:
        found = ready_made.undecided_from(text, start) if self._has_ready_made else len(text)
        for pattern in self._own:
            found = min(found, pattern.undecided_from(text, start))
        return found
