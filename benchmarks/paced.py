"""200 streams at 50 tokens a second through real sockets: cost, smoothness, promptness, size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from benchmarks import ours, peers
from benchmarks.harness import Measured, Settings, Side, best, compare, provider, values
from benchmarks.peers import expect
from benchmarks.promptness import Commits
from benchmarks.table import Row, each
from benchmarks.workload import cpu_seconds, percentile, size_of_table, size_on_disk

TITLE = "200 streams x 50 tokens/s, paced"
STREAMS, PACE = 200, 50
#: The streams start evenly over this many seconds. The event loop is measured from SETTLED seconds on, when all of them
#: stream, until the first one ends.
RAMP, SETTLED = 1.0, 1.3
#: The interval of the probe of the event loop (seconds).
PROBE = 0.005


def rows(settings: Settings) -> list[Row]:
    """The SDK alone, our model alone, and our model with the handler."""
    tokens = settings.size(PACE * 6, PACE * 2)
    traffic: dict[str, Any] = {"tokens": tokens, "streams": STREAMS}
    with provider("--tokens", str(tokens), "--tokens-per-second", str(PACE)) as url:
        traffic["url"] = url
        sides = {
            "sdk": Side("benchmarks.paced:sdk", traffic),
            "http": Side("benchmarks.paced:http", traffic),
            "bare": Side("benchmarks.paced:bare", traffic),
            "tokens": Side("benchmarks.paced:into_sqlite", {**traffic, "capture": "tokens"}, folder=True),
            "wire": Side("benchmarks.paced:into_sqlite", {**traffic, "capture": "wire"}, folder=True),
        }
        if settings.quick:
            del sides["http"], sides["tokens"]
        found = compare(sides, min(settings.rounds, 2))
    return [*_cost(found), *_smoothness(found), *_promptness(found), *_size(found)]


def _cost(found: dict[str, list[Measured]]) -> list[Row]:
    sdk = best(found["sdk"], "us")
    names = {
        "sdk": "sdk: processor time a token: OpenAI SDK, nothing recorded",
        "http": "the SDK's HTTP client alone, the bytes not looked at",
        "bare": "our ChatOpenAI.astream, nothing recorded",
        "tokens": "with ChatHistoryCallback, tokens recorded",
        "wire": "with ChatHistoryCallback, tokens and frames recorded",
    }
    lines = []
    for name, runs in found.items():
        ratio = best(runs, "us") / sdk
        met = ratio < 0.5 if name == "wire" else None
        lines.append(
            Row(
                names[name],
                f"{best(runs, 'us'):,.1f} us",
                each(values(runs, "us")),
                "" if name == "sdk" else f"{ratio:.3f} x sdk",
                "" if met is None else "under 0.5 x",
                met,
            )
        )
    return lines


def _smoothness(found: dict[str, list[Measured]]) -> list[Row]:
    p99 = {name: best(runs, "late_p99_ms") for name, runs in found.items()}
    added = p99["wire"] - p99["bare"]
    lines = [
        Row(
            f"event loop late, p99, while all stream: {what}",
            f"{p99[name]:.2f} ms",
            each(values(found[name], "late_p99_ms"), ".2f"),
        )
        for name, what in {
            "sdk": "OpenAI SDK",
            "bare": "ours, nothing recorded",
            "wire": "ours, recorded",
        }.items()
    ]
    return [*lines, Row("added by recording", f"{added:+.2f} ms", "", "", "under 3 ms", added < 3)]


def _promptness(found: dict[str, list[Measured]]) -> list[Row]:
    p99, interval = best(found["wire"], "commit_p99_ms"), best(found["wire"], "flush_interval_ms")
    return [
        Row(
            f"accepted to committed, p99 (p50 {best(found['wire'], 'commit_p50_ms'):.0f} ms)",
            f"{p99:.0f} ms",
            each(values(found["wire"], "commit_p99_ms"), ".0f"),
            f"{p99 / interval:.2f} x flush_interval",
            "under 2 x",
            p99 < 2 * interval,
        )
    ]


def _size(found: dict[str, list[Measured]]) -> list[Row]:
    """The file; and, where only tokens are recorded, their own table: what is stored once a token.

    A file of six-second runs is a third rows of runs, conversations and messages, which grow with the runs.
    """
    lines = []
    if "wire" in found:
        lines.append(_bytes("on disk a token, tokens and frames, the whole file", found["wire"], target=75))
        lines.append(_bytes("of these, the tokens' own table", found["wire"], "token_bytes"))
    if "tokens" in found:
        lines.append(_bytes("on disk a token, tokens", found["tokens"], "token_bytes", 30))
        lines.append(_bytes("the whole file, with runs of six seconds and their messages", found["tokens"]))
    return lines


def _bytes(what: str, runs: list[Measured], key: str = "bytes_per_token", target: int | None = None) -> Row:
    figure = best(runs, key)
    wanted = "" if target is None else f"at most {target} B"
    return Row(
        what,
        f"{figure:.1f} B",
        each(values(runs, key)),
        "",
        wanted,
        None if target is None else figure <= target,
    )


def sdk(**traffic: Any) -> Measured:
    """The official SDK."""
    return asyncio.run(drive(peers.openai_client, peers.openai_stream, **traffic))


def http(**traffic: Any) -> Measured:
    """The HTTP client that both use."""
    return asyncio.run(drive(peers.openai_client, peers.http_stream, **traffic))


def bare(**traffic: Any) -> Measured:
    """Our model without a handler."""
    return asyncio.run(drive(ours.openai_model, ours.model_stream, **traffic))


def into_sqlite(folder: str, capture: str, **traffic: Any) -> Measured:
    """`recorded` on a new SQLite file, with its size."""
    url = ours.new_file(folder)
    found = recorded(url, capture, **traffic)
    sent = traffic["streams"] * traffic["tokens"]
    return {
        **found,
        "bytes_per_token": size_on_disk(ours.path_of(url)) / sent,
        "token_bytes": size_of_table(ours.path_of(url), "segments") / sent,
    }


def recorded(database: str, capture: str, **traffic: Any) -> Measured:
    """Our model with the handler; its close is part of the cost, not of the commits' times."""
    commits = Commits()
    history = ours.open_history(database, capture=capture)

    def model(url: str) -> Any:
        return ours.openai_model(url, [history])

    found = asyncio.run(
        drive(
            model, ours.model_stream, warm=ours.openai_model, close=lambda: history.close().wait(), **traffic
        )
    )
    sent = traffic["streams"] * traffic["tokens"]
    expect(ours.stored_tokens(database), sent)
    late = commits.late_ms()
    expect(len(late), sent)
    return {
        **found,
        "commit_p50_ms": percentile(late, 0.5),
        "commit_p99_ms": percentile(late, 0.99),
        "flush_interval_ms": history.recorder.config.flush_interval * 1e3,
        "commits": history.stats().commits,
    }


async def drive(
    make: Callable[[str], Any],
    stream: Callable[[Any], AsyncIterator[str]],
    *,
    url: str,
    tokens: int,
    streams: int,
    work_us: float = 0.0,
    warm: Callable[[str], Any] | None = None,
    close: Callable[[], object] = bool,
) -> Measured:
    """Read all streams while a probe measures how late the event loop is.

    `work_us` is what the application does with each token: so many microseconds of Python. `warm` makes
    the model that begins one stream beforehand, so that imports are not counted.
    """
    await _begin_one(stream((warm or make)(url)))
    model = make(url)

    async def reader(number: int) -> None:
        await asyncio.sleep(RAMP * number / streams)
        async for _ in stream(model):
            if work_us:
                work(work_us)

    late: list[tuple[float, float]] = []
    probe = asyncio.create_task(_probe(late))
    began, at = cpu_seconds(), time.perf_counter()
    readers = [asyncio.create_task(reader(number)) for number in range(streams)]
    await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    first_end = time.perf_counter()
    await asyncio.gather(*readers)
    busy, wall = cpu_seconds() - began, time.perf_counter() - at
    probe.cancel()
    close()
    steady = [seconds for moment, seconds in late if at + SETTLED < moment < first_end]
    return {
        "us": (cpu_seconds() - began) / (streams * tokens) * 1e6,
        "cores": busy / wall,
        "late_p50_ms": percentile(steady, 0.5) * 1e3,
        "late_p99_ms": percentile(steady, 0.99) * 1e3,
        "wall_s": wall,
    }


async def _begin_one(texts: AsyncIterator[str]) -> None:
    """Read until the first text, then stop reading."""
    async for text in texts:
        if text:
            break
    await texts.aclose()  # type: ignore[attr-defined]


async def _probe(late: list[tuple[float, float]]) -> None:
    """Add to `late` the times at which the probe ran, with its delay in seconds."""
    clock = time.perf_counter
    while True:
        began = clock()
        await asyncio.sleep(PROBE)
        now = clock()
        late.append((now, now - began - PROBE))


def work(microseconds: float) -> None:
    """Keep the thread busy with Python code, measured by the thread's own processor time."""
    until = time.thread_time() + microseconds / 1e6
    while time.thread_time() < until:
        pass
