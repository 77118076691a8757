"""Replay: as fast as possible, at its own pace, the first token of many, following, and memory."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from benchmarks.workload import percentile, resident_bytes, words
from recorder.core.ids import new_id
from tests import postgres

TITLE = "Replay"
KINDS = ("sqlite", "postgres")


def rows(settings: Settings) -> list[Row]:
    """Each on both databases."""
    os.environ[postgres.GIVEN] = postgres.server()
    seed = {"seed": settings.seed}
    long = {**seed, "tokens": settings.size(1_000_000, 100_000)}
    sides = {f"{kind}": Side("benchmarks.replay:fast", {**long, "kind": kind}, folder=True) for kind in KINDS}
    sides["select"] = Side("benchmarks.replay:select", long, folder=True)
    fast = compare(sides, settings.rounds)
    paced = {"pace": Side("benchmarks.replay:cadence", {"seconds": settings.size(60, 5)}, folder=True)}
    sizes = {"few": 100_000, "many": settings.size(10_000_000, 1_000_000)}
    first = {
        name: Side("benchmarks.replay:first_token", {**seed, "tokens": tokens}, folder=True)
        for name, tokens in sizes.items()
    }
    followed = {
        kind: Side("benchmarks.replay:follow", {"kind": kind, "tokens": 400}, folder=True) for kind in KINDS
    }
    return [
        *_fast(fast),
        *_cadence(compare(paced, 1)),
        *_first(compare(first, 1), sizes["many"]),
        *_follow(compare(followed, min(settings.rounds, 2))),
    ]


def _fast(found: dict[str, list[Measured]]) -> list[Row]:
    lines = [_rate("select", "SELECT of one row a token, sqlite3, fetched in thousands", found, "rows", None)]
    for kind in KINDS:
        lines.append(_rate(kind, f"{kind}: .stream(speed=None), chunks", found, "chunks", 1_000_000))
        lines.append(_rate(kind, f"{kind}: .astream(speed=None), chunks", found, "later", None))
        lines.append(_rate(kind, f"{kind}: .frames(speed=None), events", found, "frames", 1_000_000))
        grown = best(found[kind], "grown_mb")
        what = f"{kind}: memory above the start, a run of {best(found[kind], 'tokens'):,.0f} tokens"
        shown = each(values(found[kind], "grown_mb"))
        lines.append(Row(what, f"{grown:.1f} MB", shown, "", "under 20 MB", grown < 20))
    return lines


def _rate(name: str, what: str, found: dict[str, list[Measured]], key: str, target: int | None) -> Row:
    rate = best(found[name], key, max)
    wanted = "" if target is None else f"at least {target:,}/s"
    ratio = "" if name == "select" else f"{rate / best(found['select'], 'rows', max):.2f} x select"
    shown = each(values(found[name], key), ",.0f")
    return Row(what, f"{rate:,.0f}/s", shown, ratio, wanted, None if target is None else rate >= target)


def _cadence(found: dict[str, list[Measured]]) -> list[Row]:
    p99, drift = best(found["pace"], "p99_ms"), best(found["pace"], "drift_ms")
    what = f"at its own pace, {best(found['pace'], 'seconds'):.0f} s of 50 tokens/s: "
    return [
        Row(what + "late, p99", f"{p99:.2f} ms", "", "", "under 2 ms", p99 < 2),
        Row(
            what + "later in the last tenth than in the first",
            f"{drift:+.2f} ms",
            "",
            "",
            "none",
            abs(drift) < 1,
        ),
    ]


def _first(found: dict[str, list[Measured]], tokens: int) -> list[Row]:
    few, many = best(found["few"], "p50_ms"), best(found["many"], "p50_ms")
    return [
        Row("first token of a run out of 100,000 tokens, p50", f"{few:.2f} ms"),
        Row(f"first token of a run out of {tokens:,} tokens, p50 (p99 {best(found['many'], 'p99_ms'):.2f} ms)",
            f"{many:.2f} ms", "", f"{many / few:.2f} x the few", "under 5 ms, 1.2 x", many < 5 and many < 1.2 * few),
    ]  # fmt: skip


def _follow(found: dict[str, list[Measured]]) -> list[Row]:
    lines = []
    for kind, target in (("sqlite", 60), ("postgres", 20)):
        p99 = best(found[kind], "p99_ms")
        what = f"{kind}: from COMMIT to a follower, p99 (p50 {best(found[kind], 'p50_ms'):.1f} ms)"
        lines.append(
            Row(
                what,
                f"{p99:.1f} ms",
                each(values(found[kind], "p99_ms")),
                "",
                f"under {target} ms",
                p99 < target,
            )
        )
        one, many = best(found[kind], "queries_of_one"), best(found[kind], "queries_of_many")
        lines.append(Row(f"{kind}: queries a commit, 1,000 followers of one run", f"{many:.2f}", "",
                         f"{many / one:.2f} x one follower", "no more than one", many <= 1.1 * one))  # fmt: skip
    return lines


# -- sides -------------------------------------------------------------------------------------------------------


def _database(kind: str, folder: str) -> str:
    return postgres.new_database() if kind == "postgres" else ours.new_file(folder)


def _record(url: str, tokens: list[str]) -> UUID:
    """One long run with its frames."""
    history = ours.open_history(url)
    run_id = UUID(new_id())
    ours.start(history, run_id)
    for number, word in enumerate(tokens):
        wait = history.on_stream_frame(_frame(word), number * 20, [(word, "text", "0")], run_id=run_id)
        if wait is not None:
            wait.wait()
    ours.end(history, run_id, "".join(tokens))
    history.close().wait()
    return run_id


def _frame(word: str) -> bytes:
    choice = {"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}
    fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    return b"data: " + json.dumps({**fields, "choices": [choice]}).encode() + b"\n\n"


def fast(folder: str, kind: str, seed: int, tokens: int) -> Measured:
    """As fast as possible, in a process that did not record, so that the memory is that of the replay alone."""
    url = _database(kind, folder)
    run_id = _in_child(url, seed, tokens)
    try:
        return _replayed(url, str(run_id), tokens)
    finally:
        if kind == "postgres":
            postgres.drop(url)


def _in_child(url: str, seed: int, tokens: int) -> str:
    from tests.oracle import run_python

    code = (
        "import sys\nfrom benchmarks.replay import _record\nfrom benchmarks.workload import words\n"
        "print(_record(sys.argv[1], words(int(sys.argv[2]), int(sys.argv[3]))))"
    )
    done = run_python(code, url, seed, tokens, timeout=120)
    return done.stdout.strip() or done.stderr


def _replayed(url: str, run_id: str, tokens: int) -> Measured:
    from recorder.replay import Replay

    async def later(replay: Replay) -> int:
        count = 0
        async for _ in replay.astream(run_id, speed=None):
            count += 1
        return count

    with Replay(url) as replay:
        for _ in replay.stream(run_id, speed=None, until=1_000):
            pass
        gc.collect()
        before, most = resident_bytes(), 0
        began, count = time.perf_counter(), 0
        for _ in replay.stream(run_id, speed=None):
            count += 1
            if not count % 100_000:
                most = max(most, resident_bytes())
        streamed = time.perf_counter()
        events = sum(1 for _ in replay.frames(run_id, speed=None))
        framed = time.perf_counter()
        asyncio.run(later(replay))
        done = time.perf_counter()
    expect(events, tokens)
    expect(count - 2, tokens)
    return {
        "chunks": tokens / (streamed - began),
        "frames": tokens / (framed - streamed),
        "later": tokens / (done - framed),
        "grown_mb": max(0, most - before) / 1e6,
        "tokens": tokens,
    }


def select(folder: str, seed: int, tokens: int) -> Measured:
    """The cost of reading a table that has a row for each token."""
    texts = words(seed, 1_000)
    database = sqlite3.connect(str(Path(folder) / "raw.db"))
    database.execute(
        "CREATE TABLE tokens (run_id TEXT, seq INTEGER, at_us INTEGER, text TEXT, PRIMARY KEY (run_id, seq))"
        " WITHOUT ROWID"
    )
    database.executemany(
        "INSERT INTO tokens VALUES ('run', ?, ?, ?)", ((n, n * 20, texts[n % 1_000]) for n in range(tokens))
    )
    database.commit()
    began, count = time.perf_counter(), 0
    cursor = database.execute("SELECT seq, at_us, text FROM tokens WHERE run_id = 'run' ORDER BY seq")
    while found := cursor.fetchmany(1_000):
        for _ in found:
            count += 1
    seconds = time.perf_counter() - began
    expect(count, tokens)
    return {"rows": tokens / seconds}


def cadence(folder: str, seconds: int) -> Measured:
    """The delay of each token; in the recording there is one every 20 ms."""
    from recorder.replay import Replay

    url = ours.new_file(folder)
    history = ours.open_history(url)
    run_id = UUID(new_id())
    ours.start(history, run_id)
    offsets = [20_000 * (number + 1) for number in range(seconds * 50)]
    for at_us in offsets:
        history.on_stream_frame(b"data: x\n\n", at_us, [("x", "text", "0")], run_id=run_id)
    ours.end(history, run_id, "x")
    history.close().wait()
    with Replay(url) as replay:
        came = [time.perf_counter() for _ in zip(replay.stream(str(run_id)), offsets, strict=False)]
    late = [
        (at - came[0]) * 1e3 - (offset - offsets[0]) / 1e3 for at, offset in zip(came, offsets, strict=True)
    ]
    tenth = len(late) // 10
    error = [abs(each) for each in late]
    return {
        "p99_ms": percentile(error, 0.99),
        "drift_ms": percentile(late[-tenth:], 0.5) - percentile(late[:tenth], 0.5),
        "seconds": seconds,
    }


def first_token(folder: str, seed: int, tokens: int) -> Measured:
    """The time from the call to the first chunk, for runs of 1,000 tokens that were not read before."""
    from recorder.replay import Replay

    url = ours.new_file(folder)
    ours.callback_to_commit(url, seed, tokens // 1_000, tokens)
    ids = [row[0] for row in sqlite3.connect(ours.path_of(url)).execute("SELECT id FROM runs")]
    random.Random(seed).shuffle(ids)
    latencies = []
    with Replay(url) as replay:
        next(iter(replay.stream(ids[0], speed=None)))
        for run_id in ids[1:51]:
            began = time.perf_counter()
            next(iter(replay.stream(run_id, speed=None)))
            latencies.append((time.perf_counter() - began) * 1e3)
    return {"p50_ms": percentile(latencies, 0.5), "p99_ms": percentile(latencies, 0.99)}


def follow(folder: str, kind: str, tokens: int) -> Measured:
    """One token per commit: the time until a follower has it, and the number of queries of a thousand followers."""
    url = _database(kind, folder)
    try:
        late, one = _followed(url, tokens, 1)
        _, many = _followed(url, tokens // 8, 1_000)
    finally:
        if kind == "postgres":
            postgres.drop(url)
    return {
        "p50_ms": percentile(late, 0.5),
        "p99_ms": percentile(late, 0.99),
        "queries_of_one": one,
        "queries_of_many": many,
    }


def _followed(url: str, tokens: int, followers: int) -> tuple[list[float], float]:
    """The milliseconds from each token's COMMIT to the first follower, and the queries for tokens per commit."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from recorder.replay import Replay
    from recorder.replay.reader_thread import shared

    history = ours.open_history(url, flush_interval=0)
    run_id = UUID(new_id())
    ours.start(history, run_id)
    history.flush().wait()
    committed: list[float] = []
    came: list[float] = []
    queries = 0

    def seen(*given: Any) -> None:
        nonlocal queries
        queries += "segments.deltas" in given[2]

    def record() -> None:
        for _ in range(tokens):
            history.on_llm_new_token("x", run_id=run_id)
            history.flush().wait()
            committed.append(time.perf_counter())
            time.sleep(0.01)
        ours.end(history, run_id, "x")
        history.close().wait()

    async def listen(replay: Replay, notes: list[float]) -> None:
        async for chunk in replay.astream(str(run_id), speed=None, follow=True):
            if chunk.content:
                notes.append(time.perf_counter())

    async def story(replay: Replay) -> None:
        listening = [
            asyncio.create_task(listen(replay, came if not number else [])) for number in range(followers)
        ]
        await asyncio.sleep(0.2)
        await asyncio.gather(asyncio.to_thread(record), *listening)

    reader = shared(url)
    event.listen(Engine, "before_cursor_execute", seen)
    with Replay(url) as replay:
        before = reader.version
        asyncio.run(story(replay))
        looks = reader.version - before
    event.remove(Engine, "before_cursor_execute", seen)
    reader.close()
    expect(len(came), tokens)
    late = [max(0.0, at - done) * 1e3 for at, done in zip(came, committed, strict=True)]
    return late, queries / max(1, looks)
