"""The pauses between the chunks of one run, of which a bounded number is kept, evenly spread over the run."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from recorder.storage.rows import SegmentRow

#: The most pauses of one run that are kept if each one is wanted.
_MOST = 100_000


class ChunkTimes:
    """Collects them over all commits of the run. Tokens of one time came in one chunk."""

    __slots__ = ("_last_us", "_limit", "_next_seq", "_seen", "_stride", "pauses_us")

    def __init__(self, limit: int | None) -> None:
        self._limit = _MOST if limit is None else limit
        self._last_us: int | None = None
        self._next_seq = 0
        #: The pauses so far, and every how many of them one is kept.
        self._seen, self._stride = 0, 1
        #: Microseconds.
        self.pauses_us: list[int] = []

    def add(self, segments: Iterable[SegmentRow]) -> None:
        """The next tokens of the run. After missing ones no pause is measured."""
        for row in segments:
            if row.seq != self._next_seq:
                self._last_us = None
            self._next_seq = row.seq + row.count
            self._add_times([item[0] for item in orjson.loads(row.deltas)])

    def _add_times(self, times_us: list[int]) -> None:
        last, pauses = self._last_us, []
        for at_us in times_us:
            if at_us != last:
                if last is not None:
                    pauses.append(max(0, at_us - last))
                last = at_us
        self._last_us = last
        if self._limit:
            self._choose(pauses)

    def _choose(self, pauses: list[int]) -> None:
        """Keep every `_stride`th pause of the run, and only half of them when they become too many."""
        self.pauses_us += pauses[-self._seen % self._stride :: self._stride]
        self._seen += len(pauses)
        while len(self.pauses_us) > self._limit:
            self._stride *= 2
            self.pauses_us = self.pauses_us[::2]
