"""Runs whose id another run has already: each becomes a further attempt, under an id of its own."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid5

from recorder.storage.rows import FrameRow, GapRow, MessageRow, Part, RunRows, RunStart, SegmentRow

log = logging.getLogger("recorder")

#: Of how many ids the number of the last attempt is remembered; of others it is found by trying.
_REMEMBERED = 1_000

Row = TypeVar("Row", SegmentRow, FrameRow, GapRow, MessageRow)


class _Next(NamedTuple):
    """An attempt's id and number."""

    run_id: str
    attempt: int


class Attempts:
    """Gives further attempts their ids, the same ones in all processes: made of the first one's id and a number."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def separate(self, runs: Sequence[RunRows]) -> Sequence[RunRows]:
        """Runs with an id each, sorted by it: of those that share one, the first to begin keeps it."""
        if len({rows.start.run_id for rows in runs}) == len(runs):
            return runs
        there: set[str] = set()
        for rows in sorted(runs, key=lambda rows: (rows.opens, rows.start.order)):
            if rows.start.run_id in there:
                self._rename(rows)
            there.add(rows.start.run_id)
        return _sorted(runs)

    def rename(self, batch: list[Part], run_ids: Collection[str], left: Sequence[Part] = ()) -> None:
        """Make further attempts of the runs that begin in this batch with these ids; some of their rows may be `left`
        for later batches."""
        runs = [part for part in batch if isinstance(part, RunRows)]
        for rows in runs:
            if rows.opens and (before := rows.start.run_id) in run_ids:
                self._rename(rows)
                for other in left:
                    if isinstance(other, RunRows) and other.start is rows.start:
                        _relabel(other, before)
        batch[:] = [*_sorted(runs), *(part for part in batch if not isinstance(part, RunRows))]

    def _rename(self, rows: RunRows) -> None:
        start, before = rows.start, rows.start.run_id
        if start.first_run_id is None:
            start.first_run_id = before
        start.run_id, start.attempt = self._next(start)
        log.info("Run %s was recorded before; this is attempt %d, %s", before, start.attempt, start.run_id)
        _relabel(rows, before)

    def _next(self, start: RunStart) -> _Next:
        first = start.first_run_id
        assert first is not None
        attempt = max(start.attempt, self._last.pop(first, 1)) + 1
        self._last[first] = attempt
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return _Next(str(uuid5(UUID(first), str(attempt))), attempt)


def _sorted(runs: Sequence[RunRows]) -> list[RunRows]:
    return sorted(runs, key=lambda rows: rows.start.run_id)


def _relabel(rows: RunRows, before: str) -> None:
    after = rows.start.run_id
    rows.segments = _relabelled(rows.segments, before, after)
    rows.frames = _relabelled(rows.frames, before, after)
    rows.gaps = _relabelled(rows.gaps, before, after)
    rows.messages = _relabelled(rows.messages, before, after)


def _relabelled(rows: Sequence[Row], before: str, after: str) -> list[Row]:
    """A request's messages are of no run."""
    return [row._replace(run_id=after) if row.run_id == before else row for row in rows]
