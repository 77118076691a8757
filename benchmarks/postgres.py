"""The same on Postgres: from the callback to COMMIT beside COPY, and bytes a token of paced streams."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import Any
from uuid import UUID

from benchmarks import ours, paced
from benchmarks.commit import rate_row
from benchmarks.harness import Measured, Settings, Side, best, compare, provider, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from benchmarks.workload import words
from recorder.core.ids import new_id
from tests import postgres

TITLE = "Postgres: callback to COMMIT, unpaced (tokens/s); bytes a token, paced"
COPY = "asyncpg COPY, a row a token keyed by (run, seq), 1000 a transaction"


def rows(settings: Settings) -> list[Row]:
    """All sides on one server, each in a new database."""
    os.environ[postgres.GIVEN] = postgres.server()
    seed = {"seed": settings.seed}
    few = {**seed, "runs": 200, "tokens": settings.size(400_000, 100_000)}
    many = {**seed, "runs": 10_000, "tokens": settings.size(600_000, 200_000)}
    sides = {
        "copy": Side("benchmarks.postgres:copy", few),
        "copy many": Side("benchmarks.postgres:copy", many),
        "few": Side("benchmarks.postgres:callback_to_commit", few),
        "many": Side("benchmarks.postgres:callback_to_commit", many),
    }
    found = compare(sides, settings.rounds)
    return [*_rates(found), *_size(settings)]


def _rates(found: dict[str, list[Measured]]) -> list[Row]:
    row = partial(rate_row, found)
    copied = best(found["copy"], "bytes_per_token")
    return [
        row("copy", f"copy: {COPY}, 200 runs ({copied:.0f} B a token)"),
        row("few", "recorder, 200 runs", "copy", 3),
        row("copy many", "copy many: the same COPY, 10,000 runs"),
        row("many", "recorder, 10,000 runs, their begins and ends included", "copy", 1),
        row("many", "the same, beside copy many", "copy many"),
    ]


def _size(settings: Settings) -> list[Row]:
    tokens = settings.size(paced.PACE * 6, paced.PACE * 2)
    with provider("--tokens", str(tokens), "--tokens-per-second", str(paced.PACE)) as url:
        traffic = {"url": url, "tokens": tokens, "streams": paced.STREAMS}
        found = compare({"paced": Side("benchmarks.postgres:recorded", traffic)}, 1)["paced"]
    own, all_tables = best(found, "token_bytes"), best(found, "bytes_per_token")
    return [
        Row(
            f"200 streams x 50 tokens/s, tokens only, on disk a token ({best(found, 'us'):.1f} us of processor time)",
            f"{own:.1f} B", each(values(found, "token_bytes")), "", "at most 55 B", own <= 55,
        ),
        Row("all tables, with runs of six seconds and their messages", f"{all_tables:.1f} B"),
    ]  # fmt: skip


def copy(seed: int, runs: int, tokens: int) -> Measured:
    """The fastest plain way: COPY with one row per token; the rows are made before the measurement."""
    url = postgres.new_database(empty=True)
    ids = [UUID(new_id()) for _ in range(runs)]
    texts = words(seed, 1000)
    made = [(ids[n % runs], n // runs, n * 10, texts[n % 1000]) for n in range(tokens)]
    try:
        seconds = asyncio.run(_copied(url, made))
        [(stored, size)] = postgres.fetch(
            url, "SELECT count(*), pg_total_relation_size('tokens') FROM tokens"
        )
    finally:
        postgres.drop(url)
    expect(stored, tokens)
    return {"tokens_per_second": tokens / seconds, "bytes_per_token": size / tokens}


async def _copied(url: str, made: list[Any]) -> float:
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE tokens (run_id uuid, seq bigint, at_us bigint, text text, PRIMARY KEY (run_id, seq))"
    )
    began = time.perf_counter()
    for start in range(0, len(made), 1000):
        await connection.copy_records_to_table("tokens", records=made[start : start + 1000])
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


def callback_to_commit(seed: int, runs: int, tokens: int) -> Measured:
    """Recorder's side."""
    url = postgres.new_database()
    try:
        return ours.callback_to_commit(url, seed, runs, tokens)
    finally:
        postgres.drop(url)


def recorded(url: str, streams: int, tokens: int) -> Measured:
    """Paced streams of our model, tokens recorded."""
    database = postgres.new_database()
    try:
        found = paced.recorded(database, "tokens", url=url, streams=streams, tokens=tokens)
        names = "segments", "runs", "conversations", "messages"
        sizes = [postgres.fetch(database, f"SELECT pg_total_relation_size('{name}')")[0][0] for name in names]
    finally:
        postgres.drop(database)
    sent = streams * tokens
    return {**found, "token_bytes": sizes[0] / sent, "bytes_per_token": sum(sizes) / sent}
