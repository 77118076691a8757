"""What conversations and users have cost: short queries by index, for budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from recorder.costs.budgets import CONVERSATION, Budget
from recorder.storage.schema import conversations, runs
from recorder.storage.statuses import IS_MODEL_CALL
from recorder.storage.store import SqlStore


class Spending(NamedTuple):
    """The sums for one budget (US dollars)."""

    #: Until now, and until the run began.
    now: float
    before: float


class PricedRun(NamedTuple):
    """A run whose cost is stored, and whose conversation has it now."""

    run_id: str
    conversation_id: str
    #: The owner of the conversation; None if it has none.
    user_id: str | None
    started_at: datetime


async def committed_runs(store: SqlStore, run_ids: Sequence[str]) -> list[PricedRun]:
    """Those of these runs that are stored with a cost, in this order."""
    columns = runs.c.id, runs.c.conversation_id, conversations.c.user_id, runs.c.started_at
    joined = runs.outerjoin(conversations, conversations.c.id == runs.c.conversation_id)
    query = select(*columns).select_from(joined).where(runs.c.id.in_(run_ids), runs.c.cost.is_not(None))
    rows = await store.fetch(query)
    found = {row.id: PricedRun(row.id, row.conversation_id, row.user_id, row.started_at) for row in rows}
    return [found[id] for id in run_ids if id in found]


async def spending(store: SqlStore, budget: Budget, key: str, began: datetime, now: datetime) -> Spending:
    """What a conversation or a user has cost within the time of a budget.

    The second sum has the runs that had ended at `began`, when the run began that is looked at. It tells whether the
    limit was passed before, by whatever process.
    """
    [(spent,)] = await store.fetch(_sum(budget, key, now))
    if spent is None or spent < budget.limit:
        return Spending(spent or 0.0, 0.0)
    earlier = _sum(budget, key, began).where(runs.c.ended_at < began)
    [(before,)] = await store.fetch(earlier)
    return Spending(spent, before or 0.0)


def _sum(budget: Budget, key: str, until: datetime) -> Select[tuple[float | None]]:
    """The query of a sum. Both tables are found by an index; chains and tools are no runs of models."""
    query = select(func.sum(runs.c.cost)).where(IS_MODEL_CALL, _belongs(budget, key))
    if budget.within is not None:
        query = query.where(runs.c.started_at > until - budget.within)
    return query


def _belongs(budget: Budget, key: str) -> ColumnElement[bool]:
    if budget.per == CONVERSATION:
        return runs.c.conversation_id == key
    return runs.c.conversation_id.in_(select(conversations.c.id).where(conversations.c.user_id == key))
