"""Who records into a database, since when nothing was stored, and what is missing.

Each query reads an index, or a limited number of rows, so that the answer comes as soon from a large database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import desc, func, or_, select

from recorder.config import INTERRUPTED_AFTER
from recorder.core.clock import now
from recorder.storage.columns import names_of
from recorder.storage.liveness import is_dead, runs_here
from recorder.storage.rows import Producer
from recorder.storage.schema import gaps, messages, producers, runs
from recorder.storage.statuses import IS_OPEN
from recorder.storage.store import SqlStore

#: At most so many producers, gaps and runs are read, the newest first.
MOST_ROWS = 10_000
#: Gaps of runs that began so long ago are recent.
RECENT = timedelta(days=1)
#: The beginning of the reason of a gap whose tokens the database refused.
QUARANTINED = "quarantined:"


@dataclass(frozen=True, slots=True)
class MissingTokens:
    """The gaps of some runs."""

    #: The number of gaps, and of the tokens in them.
    gaps: int = 0
    tokens: int = 0
    #: Those of these tokens that the database refused.
    quarantined: int = 0
    #: Different reasons, those with the most tokens first.
    reasons: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Activity:
    """What a database says about the processes that record into it."""

    #: When a batch or a heartbeat was stored last; None if no process ever recorded.
    last_commit_at: datetime | None
    newest_run_at: datetime | None
    newest_message_at: datetime | None
    #: How many processes have committed in the last minute and still run, also those that closed their recorder.
    processes: int
    #: Open runs of these processes.
    streaming_runs: int
    #: Processes with open runs that run on this machine and have stored nothing for a minute; and these runs.
    stalled: Sequence[Producer]
    stalled_runs: int
    #: Open runs whose process is dead.
    dead_runs: int
    #: All gaps, at most `MOST_ROWS`.
    missing: MissingTokens
    #: The gaps of runs that began in the last `RECENT`.
    recently_missing: MissingTokens


async def activity_of(store: SqlStore) -> Activity:
    """The activity of a database that has recorder's tables."""
    open_runs = await _open_runs(store)
    found = await _producers(store)
    moment = now()
    dead = {each.id for each in found if is_dead(each, moment, INTERRUPTED_AFTER)}
    stalled = [each for each in found if each.id in dead and each.id in open_runs and runs_here(each)]
    living = {each.id for each in found} - dead
    stalled_runs = sum(open_runs[each.id] for each in stalled)
    return Activity(
        last_commit_at=max((each.heartbeat_at for each in found), default=None),
        newest_run_at=await _newest(store, runs.c.started_at),
        newest_message_at=await _newest(store, messages.c.created_at),
        processes=len(living),
        streaming_runs=sum(count for id, count in open_runs.items() if id in living),
        stalled=stalled,
        stalled_runs=stalled_runs,
        dead_runs=sum(count for id, count in open_runs.items() if id in dead) - stalled_runs,
        missing=await _missing(store, None),
        recently_missing=await _missing(store, moment - RECENT),
    )


async def _open_runs(store: SqlStore) -> dict[str, int]:
    """The number of open runs of each producer that has any."""
    query = select(runs.c.producer_id, func.count()).where(IS_OPEN, runs.c.producer_id.is_not(None))
    rows: Sequence[Any] = await store.fetch(query.group_by(runs.c.producer_id))
    return {row[0]: row[1] for row in rows}


async def _producers(store: SqlStore) -> list[Producer]:
    """The newest producers, and all that have open runs. Their ids sort by the time they were made."""
    columns = [producers.c[name] for name in names_of(Producer)]
    newest = select(producers.c.id).order_by(desc(producers.c.id)).limit(MOST_ROWS)
    recording = select(runs.c.producer_id).where(IS_OPEN)
    query = select(*columns).where(or_(producers.c.id.in_(newest), producers.c.id.in_(recording)))
    return [Producer(**row._mapping) for row in await store.fetch(query)]


async def _newest(store: SqlStore, column: Any) -> datetime | None:
    [row] = await store.fetch(select(func.max(column)))
    found: datetime | None = row[0]
    return found


async def _missing(store: SqlStore, since: datetime | None) -> MissingTokens:
    """The gaps of the runs that began at that time or later; None for all gaps."""
    if since is None:
        query = select(gaps.c["count"], gaps.c.reason).limit(MOST_ROWS)
    else:
        newest = select(runs.c.id).where(runs.c.started_at >= since).order_by(desc(runs.c.started_at))
        recent = newest.limit(MOST_ROWS).subquery()
        query = select(gaps.c["count"], gaps.c.reason).where(gaps.c.run_id == recent.c.id).limit(MOST_ROWS)
    tokens: defaultdict[str, int] = defaultdict(int)
    rows: Sequence[Any] = await store.fetch(query)
    for count, reason in rows:
        tokens[str(reason)] += int(count)
    return _sum(len(rows), tokens)


def _sum(count: int, tokens: Mapping[str, int]) -> MissingTokens:
    return MissingTokens(
        gaps=count,
        tokens=sum(tokens.values()),
        quarantined=sum(each for reason, each in tokens.items() if reason.startswith(QUARANTINED)),
        reasons=sorted(tokens, key=lambda reason: -tokens[reason]),
    )
