"""Searches a text for all patterns at once: the first match counts, the longest one of several at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recorder.redaction import ready_made
from recorder.redaction.ready_made import Email, ReadyMade
from recorder.redaction.user_pattern import UserPattern


class Match(NamedTuple):
    """What is replaced in a text."""

    start: int
    end: int
    #: The name of the pattern, and its place among the patterns.
    name: str
    number: int


class Scanner:
    """The patterns of one recorder. Has no state, so any number of threads may use it."""

    def __init__(self, patterns: Sequence[ReadyMade | Email | UserPattern]) -> None:
        self._patterns = tuple(patterns)
        self._own = tuple(each for each in patterns if isinstance(each, UserPattern))
        #: Whether no pattern matches short words, and none a space behind one.
        self.passes_words = not self._own
        self._has_ready_made = len(self._own) < len(self._patterns)

    def scan(self, text: str, start: int, *, final: bool) -> tuple[int, Sequence[Match]]:
        """Up to where the text is decided from `start` on, and the matches in this part, in order.

        `final`: nothing comes after this text. Raises `TimeoutError`.
        """
        until = self._until(text, start, final=final)
        if not self._own and not ready_made.may_match(text, start):
            return until, ()
        found: list[Match] = []
        nearest: list[tuple[int, int] | None] = [(-1, -1)] * len(self._patterns)
        while start < until and (match := self._first(text, start, nearest)) is not None:
            if match.start >= until:
                break
            matches = self._with_overlapping(text, match)
            end = matches[-1].end
            if end > until and end > (until := self._until(text, match.start, final=final)):
                return match.start, found
            found += matches
            start = end
        return max(start, until), found

    def _until(self, text: str, start: int, *, final: bool) -> int:
        return len(text) if final else self._undecided_from(text, start)

    def _with_overlapping(self, text: str, match: Match) -> list[Match]:
        """The match, and the rest of each match of another pattern that begins in it and ends behind it."""
        matches = [match]
        for number, pattern in [
            *enumerate(self._patterns)
        ] * 2:  # what one adds may overlap with one before it
            place = pattern.find(text, match.start + 1)
            while place is not None and place[0] < (end := matches[-1].end):
                if place[1] > end and number != match.number:
                    matches.append(Match(end, place[1], pattern.name, number))
                place = pattern.find(text, place[0] + 1)
        return matches

    def _first(self, text: str, start: int, nearest: list[tuple[int, int] | None]) -> Match | None:
        """The first match. `nearest` has the next one of each pattern, as far as it was searched for."""
        best: Match | None = None
        for number, pattern in enumerate(self._patterns):
            place = nearest[number]
            if place is not None and place[0] < start:
                place = nearest[number] = pattern.find(text, start)
            if place is not None and (best is None or (place[0], -place[1]) < (best.start, -best.end)):
                best = Match(*place, pattern.name, number)
        return best

    def _undecided_from(self, text: str, start: int) -> int:
        found = ready_made.undecided_from(text, start) if self._has_ready_made else len(text)
        for pattern in self._own:
            found = min(found, pattern.undecided_from(text, start))
        return found
