"""Estimates the usage of a stored run whose provider reported none, from what was sent and what arrived.

It reads what is stored, so a run of now and one of last year are estimated alike, also one whose process was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, or_, update

from recorder.core.json import loads
from recorder.costs.run_pricing import BilledRun, RunCost, cost_of, estimated_usage
from recorder.costs.token_counts import counter_for, input_tokens, schemas_in
from recorder.messages import BaseMessage
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.storage.schema import runs
from recorder.storage.store import SqlStore
from recorder.wire.deltas import REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL
from recorder.wire.recorded_run import ANTHROPIC
from recorder.wire.usage import ESTIMATED_USAGE

#: Kinds of tokens that the model generated and the provider charges for.
GENERATED = frozenset((TEXT, REASONING, REFUSAL, TOOL_CALL, TOOL_ARGS))
#: How many rows of tokens one query reads.
_PAGE = 50


class StoredExchange(NamedTuple):
    """What was sent and what arrived."""

    run: RecordedRun
    messages: Sequence[BaseMessage]
    #: The text, the reasoning and the arguments of tools.
    generated: str


class Estimate(NamedTuple):
    """The usage of a run, and its cost."""

    run_id: str
    input_tokens: int
    output_tokens: int
    cost: RunCost


def is_known(exchange: StoredExchange) -> bool:
    """Whether it is known what was sent. The messages of a run may be missing, because the queue was full."""
    return bool(exchange.messages) or exchange.run.usage_source == "provider"


async def exchange_of(reader: DatabaseReader, run: RecordedRun) -> StoredExchange:
    """Read what was sent and what arrived."""
    return StoredExchange(run, await reader.request(run), await _generated(reader, run.id))


def estimated(exchange: StoredExchange) -> tuple[int, int]:
    """The tokens of the input and of the output. A count of the input that the provider reported stays."""
    run = exchange.run
    count = counter_for(run.model)
    made = count(exchange.generated)
    if run.usage_source == "provider":
        return run.input_tokens or 0, max(made, run.output_tokens or 0)
    return input_tokens(exchange.messages, schemas_in(run.request), count), made


def estimate(exchange: StoredExchange, host: str | None, tier: str | None = None) -> Estimate:
    """The usage of a run and its cost. It only computes: it may be called on any thread, and takes long for long texts.

    `host` is whose prices hold, and `tier` the service tier of the response.
    """
    return _priced(exchange, estimated(exchange), host, tier)


def estimate_all(
    given: Sequence[tuple[StoredExchange, str | None, str | None]],
) -> list[Estimate | Exception]:
    """The estimates of several runs; the error in place of one that fails, which costs the others nothing."""
    found: list[Estimate | Exception] = []
    for each in given:
        try:
            found.append(estimate(*each))
        except Exception as error:  # a bug, or a message of an unknown form
            found.append(error)
    return found


def _priced(
    exchange: StoredExchange, counts: tuple[int, int], host: str | None, tier: str | None
) -> Estimate:
    run, (sent, made) = exchange.run, counts
    usage = estimated_usage(run.usage if run.usage_source == "provider" else None, sent, made)
    return Estimate(run.id, sent, made, cost_of(billed(run, usage, host, tier)))


def billed(
    run: RecordedRun, usage: Mapping[str, Any], host: str | None, tier: str | None = None
) -> BilledRun:
    """What decides the cost of a stored run."""
    requested = (run.request or {}).get("service_tier")
    return BilledRun(
        run.provider_name,
        host,
        (run.response_model, run.request_model),
        run.started_at,
        run.wire,
        usage,
        tier,
        requested if isinstance(requested, str) else None,
    )


def host_in(price: Mapping[str, Any] | None) -> str | None:
    """The host that was stored in place of a price."""
    found = (price or {}).get("host")
    return found if isinstance(found, str) else None


async def store_estimates(store: SqlStore, found: Sequence[Estimate]) -> list[str]:
    """Store estimates in one transaction; the ids of the runs. One whose usage was reported meanwhile is left alone."""
    if not found:
        return []
    silent = or_(
        runs.c.usage_source == "none",
        and_(runs.c.usage_source == "provider", runs.c.wire == ANTHROPIC, runs.c.finish_reason.is_(None)),
    )
    stored: list[str] = []
    async with store.transaction() as connection:
        for each in sorted(found, key=lambda each: each.run_id):
            counts = {
                "input_tokens": each.input_tokens,
                "output_tokens": each.output_tokens,
                "total_tokens": each.input_tokens + each.output_tokens,
                "usage_source": ESTIMATED_USAGE,
            }
            change = (
                update(runs).where(runs.c.id == each.run_id, silent).values(**counts, **each.cost._asdict())
            )
            if (await connection.execute(change)).rowcount:
                stored.append(each.run_id)
    return stored


async def _generated(reader: DatabaseReader, run_id: str) -> str:
    texts: list[str] = []
    seq = 0
    while True:
        rows = await reader.segments(run_id, seq, _PAGE)
        texts += [_text_of(loads(row.deltas)) for row in rows]
        if len(rows) < _PAGE:
            return "".join(texts)
        seq = rows[-1].seq + rows[-1].count


def _text_of(deltas: Any) -> str:
    """The generated text of one row of tokens."""
    return "".join(
        delta[1] for delta in deltas if len(delta) > 1 and isinstance(delta[1], str) and _is_generated(delta)
    )


def _is_generated(delta: Sequence[Any]) -> bool:
    return len(delta) < 3 or delta[2] in GENERATED
