"""Runs with an id that another run has already: each becomes a further attempt, with its own id."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid5

from recorder.storage.batch import Part, RunRows
from recorder.storage.rows import FrameRow, GapRow, MessageRow, RunStart, SegmentRow

log = logging.getLogger("recorder")

#: For so many ids the number of the last attempt is in memory. For others it is found by trying number after number.
_REMEMBERED = 1_000

Row = TypeVar("Row", SegmentRow, FrameRow, GapRow, MessageRow)


class _Next(NamedTuple):
    """The id and the number of the next attempt."""

    run_id: str
    attempt: int


class Attempts:
    """Gives further attempts their ids. Each is computed from the first id and a number, so all processes agree."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def separate(self, runs: Sequence[RunRows]) -> Sequence[RunRows]:
        """The runs with unique ids, sorted by id. If several share an id, the one that began first has it."""
        if len({rows.start.run_id for rows in runs}) == len(runs):
            return runs
        used: set[str] = set()
        for rows in sorted(runs, key=lambda rows: (rows.opens, rows.start.order)):
            if rows.start.run_id in used:
                self._rename(rows)
            used.add(rows.start.run_id)
        return _sorted(runs)

    def rename(self, batch: list[Part], run_ids: Collection[str], unsettled: Sequence[Part] = ()) -> None:
        """Make further attempts of the runs that begin in this batch with these ids. `unsettled` may hold more of their
        rows, for later batches."""
        runs = [part for part in batch if isinstance(part, RunRows)]
        for rows in runs:
            if rows.opens and (before := rows.start.run_id) in run_ids:
                self._rename(rows)
                for other in unsettled:
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
    """Messages of a request belong to no run and are not changed."""
    return [row._replace(run_id=after) if row.run_id == before else row for row in rows]
