"""The memory of the process while the database is locked and the producers continue."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
from typing import Any
from uuid import UUID, uuid4

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from benchmarks.workload import resident_bytes, words

TITLE = "Database stalled, producers unlimited, max_queue_bytes = 64 MiB"
BOUND = 64 * 2**20
#: The growth that is allowed above the bound.
MARGIN = 1.25
PRODUCERS = 16
#: A frame of an ordinary size, as a provider sends for a token.
FRAME = b"data: " + b"x" * 315 + b"\n\n"
CASES = {
    "awaiting": "resident memory grows by: producers on the event loop that await",
    "awaiting frames": "the same, with frames of 323 bytes",
    "threads": "producers in threads, which the call itself makes wait",
}


def rows(settings: Settings) -> list[Row]:
    """Growth of the process's memory for each kind of producer."""
    seconds = settings.size(6, 1)
    load = {"seconds": seconds, "seed": settings.seed}
    sides = {
        "awaiting": Side("benchmarks.stalled:awaiting", {**load, "frames": False}, folder=True),
        "awaiting frames": Side("benchmarks.stalled:awaiting", {**load, "frames": True}, folder=True),
        "threads": Side("benchmarks.stalled:threads", load, folder=True),
    }
    found = compare(sides, 1)
    return [_row(what, found[name]) for name, what in CASES.items()]


def _row(what: str, runs: list[Measured]) -> Row:
    grown = best(runs, "grown", max)
    counts = f"{runs[0]['accepted']:,.0f} accepted, {runs[0]['dropped']:,.0f} of them told as gaps"
    return Row(
        f"{what} ({counts})",
        f"{grown / 2**20:.1f} MiB",
        each([grown / 2**20 for grown in values(runs, "grown")]),
        f"{grown / BOUND:.2f} x bound",
        f"at most {MARGIN} x",
        grown <= BOUND * MARGIN,
    )


def awaiting(folder: str, seconds: float, seed: int, frames: bool) -> Measured:
    """Tasks on one loop that await what the call returns."""

    def produce(history: Any, ids: list[UUID], texts: list[str], until: float) -> None:
        asyncio.run(_tasks(history, ids, texts, until, frames))

    return _stalled(folder, seconds, seed, produce)


async def _tasks(history: Any, ids: list[UUID], texts: list[str], until: float, frames: bool) -> None:
    from recorder.wire.deltas import Delta

    async def task(run_id: UUID) -> None:
        number = 0
        while time.monotonic() < until:
            word = texts[number % len(texts)]
            number += 1
            if frames:
                wait = history.on_stream_frame(bytes(bytearray(FRAME)), number, (Delta(word),), run_id=run_id)
            else:
                wait = history.on_llm_new_token(word + str(number), run_id=run_id)
            if wait is not None:
                await _until(wait, until)
            elif number % 100 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(*map(task, ids))


async def _until(wait: Any, until: float) -> None:
    """Wait until the queue has room, at most until the end of the measurement."""

    async def over() -> None:
        await wait

    try:
        await asyncio.wait_for(over(), max(0.0, until - time.monotonic()))
    except TimeoutError:
        return


def threads(folder: str, seconds: float, seed: int) -> Measured:
    """Threads without an event loop, which ignore the result of the call."""

    def produce(history: Any, ids: list[UUID], texts: list[str], until: float) -> None:
        def thread(run_id: UUID) -> None:
            number = 0
            while time.monotonic() < until:
                number += 1
                history.on_llm_new_token(texts[number % len(texts)] + str(number), run_id=run_id)

        running = [threading.Thread(target=thread, args=(run_id,)) for run_id in ids]
        for each_one in running:
            each_one.start()
        for each_one in running:
            each_one.join()

    return _stalled(folder, seconds, seed, produce)


def _stalled(folder: str, seconds: float, seed: int, produce: Any) -> Measured:
    """Lock the database, let the producers go, and watch the memory; then unlock and count.

    A call without a loop waits for half of the time, and drops for the rest of it.
    """
    url = ours.new_file(folder)
    history = ours.open_history(url, max_queue_bytes=BOUND, block_timeout=seconds / 2)
    texts, ids = words(seed, 1000), [uuid4() for _ in range(PRODUCERS)]
    for run_id in ids:
        ours.start(history, run_id)
    _warm(history)
    lock = sqlite3.connect(ours.path_of(url), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    gc.collect()
    before, watch = resident_bytes(), _Watch()
    produce(history, ids, texts, time.monotonic() + seconds)
    grown = watch.stop() - before
    lock.execute("ROLLBACK")
    lock.close()
    report = history.close().wait()
    expect(report.committed + report.dropped, report.accepted)
    expect(ours.stored_tokens(url), report.committed)
    return {"grown": grown, "accepted": report.accepted, "dropped": report.dropped}


def _warm(history: Any) -> None:
    """Write a few tokens first, so that the memory of what the first batch imports is not counted."""
    run_id = uuid4()
    ours.start(history, run_id)
    for _ in range(1000):
        history.on_llm_new_token("warm", run_id=run_id)
    ours.end(history, run_id, "warm" * 1000)
    history.flush().wait()


class _Watch:
    """The highest resident memory, checked every 10 ms."""

    def __init__(self) -> None:
        self._highest = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._highest

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self._highest = max(self._highest, resident_bytes())
