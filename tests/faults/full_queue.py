"""The queue is full while the database is away: waits end in time, and tokens that found no room are a gap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.recording.stats import Stats
from tests.faults.campaign import Fault, Round
from tests.faults.ends import away_at_will
from tests.faults.models import Numbered, config_of, model_token, question
from tests.faults.producer import isolated
from tests.oracle import Acknowledged, Verdict, hasty, judge

_BLOCK_TIMEOUT = 0.2
#: The longest time that a call may take, in which some runs wait once each (seconds).
_LONGEST_CALL = 5.0
_TOKENS = 400
_RUNS = 4

#: How a model is called: outside of a loop, on one, synchronously on one as in a notebook, and several times at once.
WAYS = ("stream", "astream", "stream on a loop", "many astreams")


def full_queue(at: Round) -> Verdict:
    """The database goes away, models stream more than the queue can hold, and the database comes back."""
    way, overflow = at.chance.choice(WAYS), at.chance.choice(["block", "drop_newest"])
    at.first = 0
    with hasty(), away_at_will(at) as (url, away), _recorder(url, overflow) as history:
        model = Numbered(tokens=_TOKENS, callbacks=[history])
        _stream(model, at, range(0, 1), way)
        history.flush().wait(30)
        away(True)
        verdict = _stream(model, at, range(1, 1 + _RUNS), way)
        away(False)
        history.flush().wait(30)
        _stream(model, at, range(1 + _RUNS, 3 + _RUNS), way)
        stats = history.close().wait(30)
    numbers = [at.number(place) for place in range(3 + _RUNS)]
    ledger = {number: Acknowledged(_TOKENS, "complete") for number in numbers}
    verdict.add(judge(at.url, ledger, gaps=True, text=model_token))
    _compare(verdict, stats)
    if not verdict.exact:
        verdict.breaches.append(f"by {way}, overflow {overflow}: {stats}")
    return verdict


def _compare(verdict: Verdict, stats: Stats) -> None:
    """As many tokens are in gap rows as were dropped, and each token is counted in exactly one place."""
    if verdict.gaps != stats.dropped:
        verdict.breaches.append(f"{verdict.gaps} tokens in gap rows, {stats.dropped} dropped")
    if stats.accepted != stats.queued + stats.committed + stats.dropped + stats.quarantined:
        verdict.breaches.append("the counters do not add up")


@contextmanager
def _recorder(url: str, overflow: str) -> Iterator[ChatHistoryCallback]:
    history = ChatHistoryCallback(
        url, flush_interval=0, max_queue_bytes=60_000, overflow=overflow, block_timeout=_BLOCK_TIMEOUT
    )
    try:
        yield history
    finally:
        history.close(0)


def _stream(model: Numbered, at: Round, places: range, way: str) -> Verdict:
    """Stream these runs; a breach for each that took too long or lacks chunks."""
    verdict = Verdict()
    numbers = [at.number(place) for place in places]
    if way == "many astreams":
        asyncio.run(_all_at_once(model, numbers, verdict))
        return verdict
    for number in numbers:
        began = time.monotonic()
        if way == "stream":
            count = sum(1 for _ in model.stream(question(number), config=config_of(number)))
        else:
            count = asyncio.run(_on_a_loop(model, number, way))
        _measure(verdict, count, time.monotonic() - began)
    return verdict


def _measure(verdict: Verdict, count: int, seconds: float) -> None:
    if count != _TOKENS + 1:
        verdict.breaches.append(f"the application got {count} chunks of {_TOKENS + 1}")
    if seconds > _LONGEST_CALL:
        verdict.breaches.append(f"the application waited {seconds:.1f} s")


async def _on_a_loop(model: Numbered, number: int, way: str) -> int:
    if way == "stream on a loop":
        return sum(1 for _ in model.stream(question(number), config=config_of(number)))
    async with asyncio.timeout(30):
        return len([chunk async for chunk in model.astream(question(number), config=config_of(number))])


async def _all_at_once(model: Numbered, numbers: list[int], verdict: Verdict) -> None:
    began = time.monotonic()
    for count in await asyncio.gather(*(_on_a_loop(model, number, "astream") for number in numbers)):
        _measure(verdict, count, time.monotonic() - began)


FAULTS = [Fault("full", "full queue with the database away", isolated(full_queue))]
