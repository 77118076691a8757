"""Reads of many runs at once: what followers of hundreds of live runs ask for after each commit, with a few queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from recorder.core.clock import now
from recorder.core.json import dumps
from recorder.errors import NotFound, StoreError
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.row_checks import row_of
from recorder.storage.rows import STREAMING, GapRow, SegmentRow
from recorder.storage.schema import gaps, runs
from recorder.storage.statuses import StatusesAt, select_runs

#: As `DatabaseReader.segments`, of each key: no run and token, but the row that has the token, and those after it.
_SEGMENTS = """
SELECT run_id, seq, count, deltas FROM (
    SELECT s.run_id, s.seq, s.count, s.deltas, row_number() OVER (PARTITION BY s.run_id ORDER BY s.seq) AS place
    FROM {keys} AS a CROSS JOIN segments AS s
    WHERE s.run_id = a.id AND s.count <> 0 AND s.seq + s.count > a.number AND s.seq >= coalesce(
        (SELECT max(b.seq) FROM segments AS b WHERE b.run_id = a.id AND b.seq <= a.number), a.number)
) AS found WHERE place <= :most ORDER BY run_id, seq
"""
#: How many runs one query reads.
_RUNS_A_QUERY = 500
_NOTHING: Mapping[str, RecordedRun] = {}


class RunRead(NamedTuple):
    """A call of a method of `DatabaseReader` whose first argument is the id of a run."""

    method: Callable[..., Any]
    arguments: tuple[Any, ...]

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return str(self.arguments[0])


async def read_many(
    reader: DatabaseReader, reads: Sequence[RunRead], known: Mapping[str, RecordedRun] = _NOTHING
) -> list[Any]:
    """The result of each read, in their order: an error where the read raises one.

    There is at most one read of each method for a run. A run among `known` that still streams is not read again.
    """
    by_method: defaultdict[Any, list[RunRead]] = defaultdict(list)
    for read in reads:
        by_method[read.method].append(read)
    found: dict[tuple[Any, str], Any] = {}
    for method, group in by_method.items():
        for start in range(0, len(group), _RUNS_A_QUERY):
            part = group[start : start + _RUNS_A_QUERY]
            for run_id, result in (await _read(reader, method, part, known)).items():
                found[method, run_id] = result
    return [found[read.method, read.run_id] for read in reads]


async def _read(
    reader: DatabaseReader, method: Any, group: Sequence[RunRead], known: Mapping[str, RecordedRun]
) -> dict[str, Any]:
    if len(group) == 1 or method not in _MANY:
        return {read.run_id: await _single(reader, read) for read in group}
    try:
        found: dict[str, Any] = await _MANY[method](reader, group, known)
        return found
    except StoreError:  # perhaps a damaged row of one of them
        return {read.run_id: await _single(reader, read) for read in group}


async def _single(reader: DatabaseReader, read: RunRead) -> Any:
    try:
        return await read.method(reader, *read.arguments)
    except (NotFound, StoreError) as error:
        return error


async def _runs(
    reader: DatabaseReader, group: Sequence[RunRead], known: Mapping[str, RecordedRun]
) -> dict[str, Any]:
    ids = [read.run_id for read in group]
    current = StatusesAt(now())
    rows = await reader.store.fetch(select_runs(runs.c.id, runs.c.status).where(runs.c.id.in_(ids)))
    streaming = {row.id for row in rows if current.status_of(row) == STREAMING}
    same = {id: known[id] for id in ids if id in known and id in streaming}
    found = {run.id: run for run in await reader.by_ids([id for id in ids if id not in same])}
    return {id: same.get(id) or found.get(id) or _missing(id) for id in ids}


async def _gaps(reader: DatabaseReader, group: Sequence[RunRead], _known: object) -> dict[str, Any]:
    columns = [gaps.c[name] for name in GapRow._fields]
    query = select(*columns).where(gaps.c.run_id.in_([read.run_id for read in group]))
    found: dict[str, Any] = {read.run_id: [] for read in group}
    for row in await reader.store.fetch(query.order_by(gaps.c.run_id, gaps.c.seq)):
        found[row.run_id].append(row_of(GapRow, row))
    return found


async def _segments(reader: DatabaseReader, group: Sequence[RunRead], _known: object) -> dict[str, Any]:
    limits = {read.run_id: read.arguments[2] for read in group}
    keys = dumps([[None, read.run_id, read.arguments[1]] for read in group])
    sql = _SEGMENTS.format(keys=reader.store.dialect.key_rows)
    found: dict[str, Any] = {read.run_id: [] for read in group}
    for row in await reader.store.rows(sql, {"keys": keys, "most": max(limits.values())}):
        if len(found[row["run_id"]]) < limits[row["run_id"]]:
            found[row["run_id"]].append(row_of(SegmentRow, list(row.values())))
    return found


def _missing(run_id: str) -> NotFound:
    return NotFound(f"No run {run_id} is stored; `recorder ls` lists the stored conversations.")


_MANY: dict[Any, Callable[[DatabaseReader, Sequence[RunRead], Mapping[str, RecordedRun]], Any]] = {
    DatabaseReader.run: _runs,
    DatabaseReader.gaps: _gaps,
    DatabaseReader.segments: _segments,
}
