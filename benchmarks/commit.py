"""From the callback to COMMIT, as fast as it goes: recorder, raw sqlite3, and the documents' example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each

TITLE = "Callback to COMMIT, unpaced, SQLite (tokens/s)"
EXECUTEMANY = "sqlite3 executemany, a row a token keyed by (run, seq), 1000 a transaction, WAL, FULL"
HEAP = "heap: the same without any key, so that one run is found by reading all"
EXAMPLE = "example callback of LangChain's documents, a COMMIT a token, sqlite3's defaults"


def rows(settings: Settings) -> list[Row]:
    """Recorder, and the two sides that it is compared with."""
    seed = {"seed": settings.seed}
    few = {**seed, "runs": 200, "tokens": settings.size(400_000, 20_000)}
    many = {**seed, "runs": settings.size(10_000, 1_000), "tokens": settings.size(600_000, 20_000)}
    sides = {
        "raw": Side("benchmarks.peers:executemany", few, folder=True),
        "heap": Side("benchmarks.peers:executemany", {**few, "keyed": False}, folder=True),
        "raw many": Side("benchmarks.peers:executemany", many, folder=True),
        "example": Side("benchmarks.peers:example_callback", {**seed, "tokens": 1_000}, folder=True),
        "few": Side("benchmarks.ours:into_sqlite", few, folder=True),
        "many": Side("benchmarks.ours:into_sqlite", many, folder=True),
    }
    found = compare(sides, settings.rounds)
    alone = best(found["many"], "tokens_alone_per_second", max)
    row = partial(rate_row, found)
    return [
        row("example", EXAMPLE, "raw"),
        row("raw", f"raw: {EXECUTEMANY}, 200 runs"),
        row("heap", HEAP, "raw"),
        row("few", "recorder, 200 runs", "raw", 5),
        row("few", "the same, beside heap", "heap"),
        row("raw many", "raw many: as raw, 10,000 runs"),
        row("many", f"recorder, 10,000 runs, their begins and ends included (tokens alone {alone:,.0f}/s)",
            "raw", 2),
        row("many", "the same, beside raw many", "raw many"),
    ]  # fmt: skip


def rate_row(
    found: Mapping[str, Sequence[Measured]], name: str, what: str, over: str = "", target: float | None = None
) -> Row:
    """The tokens per second of one side, and their ratio to those of the side `over`."""
    rate = {side: best(runs, "tokens_per_second", max) for side, runs in found.items()}
    ratio = rate[name] / rate[over] if over else 0.0
    return Row(
        what,
        f"{rate[name]:,.0f}/s",
        each(values(found[name], "tokens_per_second"), ",.0f"),
        f"{ratio:.2f} x {over}" if over else "",
        f"at least {target:g} x" if target else "",
        ratio >= target if target else None,
    )
