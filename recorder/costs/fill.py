"""Estimates the missing usage and sets the missing costs of stored runs: `recorder stats --cost --fill`.

It reads a page of runs at a time and stores what it found in one transaction, so that an application may record
meanwhile. A second time it changes nothing, unless the library knows more prices then. A run that still streams is left
alone; one whose process was killed is not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update

from recorder.costs.missing_usage import needs_estimate
from recorder.costs.run_pricing import cost_of, estimated_usage
from recorder.costs.usage_estimate import (
    Estimate,
    billed,
    estimate,
    exchange_of,
    host_in,
    is_known,
    store_estimates,
)
from recorder.errors import StoreError
from recorder.storage.operations import STEPS
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.schema import runs
from recorder.storage.store import SqlStore
from recorder.wire.usage import ESTIMATED_USAGE

log = logging.getLogger("recorder")

#: Runs of one page, and of one transaction.
_PAGE = 200


@dataclass(slots=True)
class Filled:
    """What was done."""

    #: Runs without a cost that were looked at.
    examined: int = 0
    estimated: int = 0
    #: Runs with reported usage that have a cost now.
    priced: int = 0
    #: Runs that could not be read, because a row is damaged.
    failed: int = 0


async def fill(store: SqlStore, progress: Callable[[Filled], None] = lambda _: None) -> Filled:
    """Estimate and price the runs of a database. Raises the driver's errors."""
    reader, done = DatabaseReader(store), Filled()
    before: RecordedRun | None = None
    while page := await reader.latest(_PAGE, before):
        before = page[-1]
        estimates: list[Estimate] = []
        priced: list[Estimate] = []
        for run in page:
            if run.is_open or run.operation in STEPS:
                continue
            try:
                await _examine(reader, run, done, estimates, priced)
            except StoreError as error:
                done.failed += 1
                log.warning("Run %s is left out: %s", run.id, error)
        done.estimated += len(await store_estimates(store, estimates))
        done.priced += await _store_costs(store, priced)
        progress(done)
    return done


async def _examine(
    reader: DatabaseReader, run: RecordedRun, done: Filled, estimates: list[Estimate], priced: list[Estimate]
) -> None:
    if needs_estimate(run.wire, run) or _was_killed(run):
        done.examined += 1
        exchange = await exchange_of(reader, run)
        if is_known(exchange) and (exchange.generated or not _was_killed(run)):
            with _computing():
                estimates.append(estimate(exchange, host_in(run.price)))
    elif run.cost is None and (usage := _usage_of(run)):
        done.examined += 1
        with _computing():
            cost = cost_of(billed(run, usage, host_in(run.price)))
        if cost.cost is not None:
            priced.append(Estimate(run.id, 0, 0, cost))


@contextmanager
def _computing() -> Iterator[None]:
    """Inside, no connection is used: an error is one of this run's values, and the other runs are filled."""
    try:
        yield
    except Exception as error:
        raise StoreError(f"its usage or cost cannot be computed ({type(error).__name__}: {error})") from error


def _was_killed(run: RecordedRun) -> bool:
    """Whether the process died, so that the time of the first token was not stored."""
    return run.usage_source == "none" and run.sha256 is None and run.status == "interrupted"


def _usage_of(run: RecordedRun) -> Mapping[str, Any] | None:
    if run.usage_source == ESTIMATED_USAGE:
        return estimated_usage(run.usage, run.input_tokens or 0, run.output_tokens or 0)
    return run.usage


async def _store_costs(store: SqlStore, priced: Sequence[Estimate]) -> int:
    if not priced:
        return 0
    stored = 0
    async with store.transaction() as connection:
        for each in sorted(priced, key=lambda each: each.run_id):
            unpriced = runs.c.id == each.run_id, runs.c.cost.is_(None)
            stored += (
                await connection.execute(update(runs).where(*unpriced).values(**each.cost._asdict()))
            ).rowcount
    return stored
