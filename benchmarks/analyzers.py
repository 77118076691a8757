"""What analyzers cost: the pace of streams with and without them, the producer's thread, and messages a minute."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, provider, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from benchmarks.workload import cpu_seconds, percentile, words

TITLE = "Sentiment while it streams"
STREAMS, PACE = 20, 50
#: A message of a chat, 3 sentences and 160 characters.
MESSAGE = (
    "I love how fast this is, thank you for the update. But the install failed twice with number {0}. "
    "Could you please tell me why that happens on my machine?"
)
#: How far the median of the paired ratios may be from 1.
WITHIN = 0.05


def rows(settings: Settings) -> list[Row]:
    """Pairs of runs with and without analyzers, and each figure by itself."""
    tokens = settings.size(PACE * 6, PACE * 2)
    with provider("--tokens", str(tokens), "--tokens-per-second", str(PACE)) as url:
        traffic: dict[str, Any] = {"url": url, "tokens": tokens}
        sides = {
            "without": Side("benchmarks.analyzers:paced", {**traffic, "analyze": []}, folder=True),
            "with": Side("benchmarks.analyzers:paced", {**traffic, "analyze": ["sentiment"]}, folder=True),
        }
        found = compare(sides, settings.rounds)
    load = {"tokens": settings.size(100_000, 20_000), "seed": settings.seed}
    put = compare(
        {
            "without": Side("benchmarks.analyzers:put", {**load, "analyze": []}, folder=True),
            "with": Side("benchmarks.analyzers:put", {**load, "analyze": ["sentiment"]}, folder=True),
        },
        settings.rounds,
    )
    count = {"messages": settings.size(3_000, 500)}
    rate = compare({"rate": Side("benchmarks.analyzers:rate", count, folder=True)}, settings.rounds)
    return [*_pace(found), _producer(put), _rate(rate["rate"])]


def _pace(found: dict[str, list[Measured]]) -> list[Row]:
    pairs = list(
        zip(values(found["with"], "gap_p99_ms"), values(found["without"], "gap_p99_ms"), strict=True)
    )
    ratio = median(analyzed / plain for analyzed, plain in pairs)
    met = ratio <= 1 + WITHIN
    return [
        Row(f"time from token to token, p99: {STREAMS} streams x {PACE} tokens/s, recorded",
            f"{best(found['without'], 'gap_p99_ms'):.2f} ms", each(values(found["without"], "gap_p99_ms"), ".2f")),
        Row("the same, with sentiment of each sentence and message",
            f"{best(found['with'], 'gap_p99_ms'):.2f} ms", each(values(found["with"], "gap_p99_ms"), ".2f"),
            f"{ratio:.3f} x, median of pairs", f"within {WITHIN:.0%}", met),
    ]  # fmt: skip


def _producer(found: dict[str, list[Measured]]) -> Row:
    added = best(found["with"], "us") - best(found["without"], "us")
    return Row(
        "added to the producer's thread by analyzers, a token",
        f"{added:+.2f} us",
        each(values(found["with"], "us"), ".2f"),
        f"{best(found['without'], 'us'):.2f} us without",
        "under 1 us",
        added < 1,
    )


def _rate(found: list[Measured]) -> Row:
    figure = best(found, "a_minute", max)
    return Row(
        "messages a minute and core, their sentences included",
        f"{figure:,.0f}",
        each(values(found, "a_minute"), ",.0f"),
        "",
        "10,000",
        figure >= 10_000,
    )


def paced(folder: str, url: str, tokens: int, analyze: list[str]) -> Measured:
    """Streams of our model, recorded. Returns the 99th percentile of the time between two tokens of a stream."""
    return asyncio.run(_paced(folder, url, tokens, analyze))


async def _paced(folder: str, url: str, tokens: int, analyze: list[str]) -> Measured:
    history = ours.open_history(ours.new_file(folder), analyze=analyze)
    await history.opened()
    model = ours.openai_model(url, [history])
    await _stream(model, [])  # imports, and the start of the workers
    if history.analysis is not None:
        await history.analysis.flush()
    gaps: list[float] = []
    await asyncio.gather(*(_stream(model, gaps, number / STREAMS) for number in range(STREAMS)))
    expect(len(gaps) >= STREAMS * (tokens // 2), True)
    await history.close()
    if history.analysis is not None:
        expect(history.analysis.stats().failed, 0)
    return {"gap_p99_ms": percentile(gaps, 0.99) * 1e3, "gap_p50_ms": percentile(gaps, 0.5) * 1e3}


async def _stream(model: Any, gaps: list[float], delay: float = 0.0) -> None:
    await asyncio.sleep(delay)
    before = None
    async for _ in ours.model_stream(model):
        at = time.perf_counter()
        if before is not None:
            gaps.append(at - before)
        before = at


def put(folder: str, tokens: int, seed: int, analyze: list[str]) -> Measured:
    """`on_llm_new_token` on one thread. Returns that thread's own processor time for a token."""
    history = ours.open_history(ours.new_file(folder), analyze=analyze, max_queue_bytes=2**30)
    pieces = words(seed, tokens)
    run_id = uuid4()
    ours.start(history, run_id)
    history.flush().wait()
    began = time.thread_time()
    for piece in pieces:
        history.on_llm_new_token(piece, run_id=run_id)
    spent = time.thread_time() - began
    ours.end(history, run_id, "".join(pieces))
    history.close().wait()
    return {"us": spent / tokens * 1e6}


def rate(folder: str, messages: int) -> Measured:
    """Sentiment of messages and of their sentences, all on this process: cutting, evaluating and storing."""
    history = ours.open_history(
        ours.new_file(folder),
        conversation_id="c",
        analyze=["sentiment"],
        analyze_in="thread",
        close_timeout=120,
    )
    history.add_messages(MESSAGE.format("warm"))
    history.flush().wait()
    history.analysis.flush().wait()
    began = cpu_seconds()
    for number in range(messages):
        history.add_messages(MESSAGE.format(number))
        if number % 500 == 499:
            history.flush().wait()
            history.analysis.flush().wait()
    history.close().wait()
    spent = cpu_seconds() - began
    expect(history.analysis.stats().skipped, 0)
    return {"a_minute": messages / spent * 60}
