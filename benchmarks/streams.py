"""Streams through real sockets, unpaced: what a token costs the whole process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks import ours, peers
from benchmarks.harness import (
    Measured,
    Settings,
    Side,
    best,
    compare,
    provider,
    tell,
    values,
)
from benchmarks.peers import expect
from benchmarks.table import Row, each, missing
from benchmarks.workload import cpu_seconds
from recorder.testing import song_pieces

TITLE = "Streams, unpaced: processor time of the whole process a token (microseconds)"
TO_SDK, TO_LANGCHAIN, CALL = 0.12, 0.08, 0.02
#: How much a server writes at once, and what a proxy or TLS makes of it.
COALESCED = "16384"


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of traffic."""

    what: str
    #: Content tokens of a stream.
    tokens: int
    streams: int
    #: Streams at a time.
    concurrency: int
    #: Whether each token comes in an HTTP chunk of its own, or as many as fit into 16 KiB.
    chunked: bool


def rows(settings: Settings) -> list[Row]:
    """All kinds of traffic."""
    few = settings.size(20, 4)
    loads = [
        Load("1 stream at a time, 1,000 tokens each", 1000, few, 1, False),
        Load("200 streams at once, 300 tokens each, connecting included", 300, 200, 200, False),
        Load("1 stream at a time, 1,000 tokens each, an HTTP chunk a token", 1000, few, 1, True),
    ]
    if settings.quick:
        del loads[1:]
    found: list[Row] = []
    for load in loads:
        tell(f"  {load.what}")
        found += _of(load, settings)
    return [*found, _call(settings, found)]


def _of(load: Load, settings: Settings) -> list[Row]:
    options = [] if load.chunked else ["--chunk-bytes", COALESCED]
    with provider("--tokens", str(load.tokens), *options) as url:
        traffic = {
            "url": url,
            "tokens": load.tokens,
            "streams": load.streams,
            "concurrency": load.concurrency,
        }
        sides = {
            "sdk": Side("benchmarks.streams:openai_sdk", traffic),
            "langchain": Side("benchmarks.streams:langchain", traffic),
            "bare": Side("benchmarks.streams:bare", traffic),
            "tokens": Side("benchmarks.streams:recorded", {**traffic, "capture": "tokens"}, folder=True),
            "wire": Side("benchmarks.streams:recorded", {**traffic, "capture": "wire"}, folder=True),
        }
        if find_spec("langchain_openai") is None:
            del sides["langchain"]
        found = compare(sides, settings.rounds)
    return _rows(load, found)


def _rows(load: Load, found: dict[str, list[Measured]]) -> list[Row]:
    cost = {name: best(runs, "us") for name, runs in found.items()}
    langchain = cost.get("langchain")

    def row(name: str, what: str, over: str, target: float | None = None) -> Row:
        ratio = cost[name] / cost[over]
        return Row(
            what,
            f"{cost[name]:,.1f} us",
            each(values(found[name], "us")),
            f"{ratio:.3f} x {over}" if name != over else "",
            f"under {target:g} x" if target else "",
            ratio < target if target else None,
        )

    lines = [row("sdk", f"sdk: OpenAI SDK, nothing recorded. {load.what}", "sdk")]
    what = "langchain: ChatOpenAI.astream, nothing recorded"
    lines.append(
        row("langchain", what, "sdk") if langchain else missing(what, "pip install langchain-openai")
    )
    lines += [
        row("bare", "our ChatOpenAI.astream, nothing recorded", "sdk"),
        row("tokens", "the same with ChatHistoryCallback, tokens recorded", "sdk"),
        row("wire", "the same with ChatHistoryCallback, tokens and frames recorded", "sdk", TO_SDK),
    ]
    if langchain:
        lines.append(row("wire", "as above, beside langchain", "langchain", TO_LANGCHAIN))
    return lines


def _call(settings: Settings, found: list[Row]) -> Row:
    """One call of the handler, beside what the SDK needs for one event."""
    side = Side("benchmarks.ours:one_call", {"seed": settings.seed, "tokens": 100_000}, folder=True)
    runs = compare({"on_llm_new_token": side}, settings.rounds)["on_llm_new_token"]
    event = float(found[0].best.removesuffix(" us").replace(",", ""))
    cost = best(runs, "us")
    spread = f"p50 {best(runs, 'p50_us'):.1f} us, p99 {best(runs, 'p99_us'):.1f} us on the clock"
    return Row(
        f"one call of on_llm_new_token ({spread})",
        f"{cost:.2f} us",
        each(values(runs, "us"), ".2f"),
        f"{cost / event:.4f} x sdk",
        f"under {CALL:g} x",
        cost / event < CALL,
    )


def openai_sdk(**traffic: Any) -> Measured:
    """The official SDK."""
    return asyncio.run(_drive(lambda url: peers.openai_client(url), peers.openai_stream, **traffic))


def langchain(**traffic: Any) -> Measured:
    """LangChain's model."""
    return asyncio.run(_drive(peers.langchain_model, peers.langchain_stream, **traffic))


def bare(**traffic: Any) -> Measured:
    """Our model without a handler."""
    return asyncio.run(_drive(ours.openai_model, ours.model_stream, **traffic))


def recorded(folder: str, capture: str, **traffic: Any) -> Measured:
    """Our model with the handler; its close is part of the cost."""
    history = ours.open_history(folder, capture=capture)

    def model(url: str) -> Any:
        return ours.openai_model(url, [history])

    found = asyncio.run(_drive(model, ours.model_stream, close=lambda: history.close().wait(), **traffic))
    expect(ours.stored_tokens(folder), (traffic["streams"] + 1) * traffic["tokens"])
    return found


async def _drive(
    make: Callable[[str], Any],
    stream: Callable[[Any], AsyncIterator[str]],
    *,
    url: str,
    tokens: int,
    streams: int,
    concurrency: int,
    close: Callable[[], object] = bool,
) -> Measured:
    """Read all streams; one beforehand pays for connections, caches and imports."""
    model, each_one = make(url), streams // concurrency
    expected = len("".join(song_pieces(tokens)))

    async def reader() -> None:
        for _ in range(each_one):
            await _read(stream(model), expected)

    await _read(stream(model), expected)
    began = cpu_seconds()
    await asyncio.gather(*(reader() for _ in range(concurrency)))
    close()
    return {"us": (cpu_seconds() - began) / (each_one * concurrency * tokens) * 1e6}


async def _read(texts: AsyncIterator[str], expected: int) -> None:
    """All of one stream, which must say everything."""
    characters = 0
    async for text in texts:
        characters += len(text)
    expect(characters, expected)
