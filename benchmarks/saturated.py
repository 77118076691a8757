"""An application that keeps its own thread busy all the time: how late do tokens reach the database?"""

from __future__ import annotations

from benchmarks.harness import Settings, Side, best, compare, provider, values
from benchmarks.table import Row, each

TITLE = "Application at 100 % of its thread, 800 streams"
STREAMS, PACE = 800, 10
#: The work of the application for each token, in Python; together with reading it is more than the thread can do.
WORK_US = 110.0
TARGET_MS = 1500


def rows(settings: Settings) -> list[Row]:
    """The time from each token to its COMMIT."""
    tokens = settings.size(PACE * 8, PACE)
    # A quick check shall also end on a machine that has other work: there the connections of 800 streams time out.
    streams = settings.size(STREAMS, STREAMS // 8)
    with provider("--tokens", str(tokens), "--tokens-per-second", str(PACE)) as url:
        load = {"url": url, "tokens": tokens, "streams": streams, "work_us": WORK_US, "capture": "wire"}
        side = Side("benchmarks.paced:into_sqlite", load, folder=True)
        runs = compare({"recorded": side}, min(settings.rounds, 2))["recorded"]
    p99, busy = best(runs, "commit_p99_ms"), best(runs, "cores", max)
    what = f"accepted to committed, p99 (p50 {best(runs, 'commit_p50_ms'):.0f} ms; {busy:.2f} cores busy)"
    shown = each(values(runs, "commit_p99_ms"), ",.0f")
    return [Row(what, f"{p99:,.0f} ms", shown, "", f"under {TARGET_MS:,} ms", p99 < TARGET_MS)]
