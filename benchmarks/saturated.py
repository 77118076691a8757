"""An application that keeps its own thread busy all the time: how late do tokens reach the database?"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, provider, values
from benchmarks.paced import drive
from benchmarks.peers import expect
from benchmarks.promptness import Commits
from benchmarks.table import Row, each
from benchmarks.workload import percentile

TITLE = "Application at 100 % of its thread, 800 streams"
STREAMS, PACE = 800, 10
#: What the application does with each token, in Python: with reading it, more than there is time for.
WORK_US = 110.0
TARGET_MS = 1500


def rows(settings: Settings) -> list[Row]:
    """How long a token waits for its COMMIT."""
    tokens = settings.size(PACE * 8, PACE * 3)
    with provider("--tokens", str(tokens), "--tokens-per-second", str(PACE)) as url:
        load = {"url": url, "tokens": tokens, "streams": STREAMS, "work_us": WORK_US}
        side = Side("benchmarks.saturated:recorded", load, folder=True)
        runs = compare({"recorded": side}, min(settings.rounds, 2))["recorded"]
    p99, busy = best(runs, "commit_p99_ms"), best(runs, "cores", max)
    what = f"accepted to committed, p99 (p50 {best(runs, 'commit_p50_ms'):.0f} ms; {busy:.2f} cores busy)"
    shown = each(values(runs, "commit_p99_ms"), ",.0f")
    return [Row(what, f"{p99:,.0f} ms", shown, "", f"under {TARGET_MS:,} ms", p99 < TARGET_MS)]


def recorded(folder: str, **load: Any) -> Measured:
    """Our model with the handler, in an application that has no time."""
    commits = Commits()
    history = ours.open_history(folder)

    def model(url: str) -> Any:
        return ours.openai_model(url, [history])

    found = asyncio.run(drive(model, ours.model_stream, close=lambda: history.close().wait(), **load))
    expect(ours.stored_tokens(folder), load["streams"] * load["tokens"])
    late = commits.late_ms()
    return {
        **found,
        "commit_p50_ms": percentile(late, 0.5),
        "commit_p99_ms": percentile(late, 0.99),
        "commit_max_ms": max(late),
    }
