"""Streams through real sockets, unpaced: what a token costs the whole process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
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
#: The size of an HTTP chunk (bytes) that holds many tokens, as a proxy or TLS produces.
COALESCED = "16384"


_ALL = ("sdk", "langchain", "http", "bare", "tokens", "wire")
_LABELS = {
    "sdk": "sdk: OpenAI SDK, nothing recorded",
    "langchain": "langchain: ChatOpenAI.astream, nothing recorded",
    "http": "the SDK's HTTP client alone, the bytes not looked at",
    "bare": "our ChatOpenAI.astream, nothing recorded",
    "tokens": "with ChatHistoryCallback, tokens recorded",
    "wire": "with ChatHistoryCallback, tokens and frames recorded",
}


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of traffic."""

    what: str
    #: Content tokens of a stream.
    tokens: int
    streams: int
    #: The number of concurrent streams.
    concurrency: int
    #: Whether each token comes in an HTTP chunk of its own, or as many as fit into 16 KiB.
    chunked: bool = False
    sides: tuple[str, ...] = _ALL


def rows(settings: Settings) -> list[Row]:
    """All kinds of traffic."""
    few = settings.size(15, 3)
    most = tuple(name for name in _ALL if name != "tokens")
    short = tuple(name for name in most if name != "langchain")
    loads = [
        Load("1 stream at a time, 1,000 tokens each", 1000, few, 1),
        Load("200 streams at once, 200 tokens each, connecting included", 200, 200, 200, False, most),
        Load("1 stream at a time, 1,000 tokens each, an HTTP chunk a token", 1000, few, 1, True, short),
    ]
    if settings.quick:
        loads = [replace(loads[0], sides=most)]
    first = _measured(loads[0], settings, settings.rounds)
    found = [*_rows(loads[0], first), _call(settings, best(first["sdk"], "us"))]
    for load in loads[1:]:
        found += _rows(load, _measured(load, settings, min(settings.rounds, 2)))
    return found


def _measured(load: Load, settings: Settings, rounds: int) -> dict[str, list[Measured]]:
    tell(f"  {load.what}")
    options = [] if load.chunked else ["--chunk-bytes", COALESCED]
    with provider("--tokens", str(load.tokens), *options) as url:
        traffic = {
            "url": url,
            "tokens": load.tokens,
            "streams": load.streams,
            "concurrency": load.concurrency,
        }
        sides = {name: _side(name, traffic) for name in load.sides}
        if find_spec("langchain_openai") is None:
            sides.pop("langchain", None)
        return compare(sides, rounds)


def _side(name: str, traffic: dict[str, Any]) -> Side:
    if name in ("tokens", "wire"):
        return Side("benchmarks.streams:recorded", {**traffic, "capture": name}, folder=True)
    return Side(f"benchmarks.streams:{name}", traffic)


def _rows(load: Load, found: dict[str, list[Measured]]) -> list[Row]:
    cost = {name: best(runs, "us") for name, runs in found.items()}

    def row(name: str, over: str = "sdk", target: float | None = None) -> Row:
        ratio = cost[name] / cost[over]
        return Row(
            _LABELS[name] if over == "sdk" else f"the same, beside {over}",
            f"{cost[name]:,.1f} us",
            each(values(found[name], "us")),
            f"{ratio:.3f} x {over}" if name != over else "",
            f"under {target:g} x" if target else "",
            ratio < target if target else None,
        )

    lines = [Row(f"**{load.what}**", "")]
    for name in load.sides:
        if name in cost:
            lines.append(row(name, target=TO_SDK if name == "wire" else None))
        else:
            lines.append(missing(_LABELS[name], "pip install langchain-openai"))
    if "langchain" in cost:
        lines.append(row("wire", "langchain", TO_LANGCHAIN))
    return lines


def _call(settings: Settings, event: float) -> Row:
    """One call of the handler, compared with the SDK's time for one event."""
    side = Side("benchmarks.ours:one_call", {"seed": settings.seed, "tokens": 100_000}, folder=True)
    runs = compare({"on_llm_new_token": side}, settings.rounds)["on_llm_new_token"]
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


def sdk(**traffic: Any) -> Measured:
    """The official SDK."""
    return asyncio.run(drive(peers.openai_client, peers.openai_stream, **traffic))


def langchain(**traffic: Any) -> Measured:
    """LangChain's model."""
    return asyncio.run(drive(peers.langchain_model, peers.langchain_stream, **traffic))


def http(**traffic: Any) -> Measured:
    """The HTTP client that all of them use."""
    lines = 2 * peers.events(traffic["tokens"])
    return asyncio.run(drive(peers.openai_client, peers.http_stream, expected=lines, **traffic))


def bare(**traffic: Any) -> Measured:
    """Our model without a handler."""
    return asyncio.run(drive(ours.openai_model, ours.model_stream, **traffic))


def recorded(folder: str, capture: str, **traffic: Any) -> Measured:
    """Our model with the handler; its close is part of the cost."""
    database = ours.new_file(folder)
    history = ours.open_history(database, capture=capture)

    def model(url: str) -> Any:
        return ours.openai_model(url, [history])

    def close() -> None:
        history.close().wait()

    found = asyncio.run(drive(model, ours.model_stream, close=close, **traffic))
    expect(ours.stored_tokens(database), (traffic["streams"] + 1) * traffic["tokens"])
    return found


async def drive(
    make: Callable[[str], Any],
    stream: Callable[[Any], AsyncIterator[str]],
    *,
    url: str,
    tokens: int,
    streams: int,
    concurrency: int,
    expected: int | None = None,
    close: Callable[[], object] = bool,
) -> Measured:
    """Read all streams. One stream before them, which is not measured, opens connections and fills caches."""
    model, share = make(url), streams // concurrency
    length = expected or len("".join(song_pieces(tokens)))

    async def reader() -> None:
        for _ in range(share):
            await _read(stream(model), length)

    await _read(stream(model), length)
    gc.collect()  # else what was imported is looked through once in one side's figure and not in the other's
    began = cpu_seconds()
    await asyncio.gather(*(reader() for _ in range(concurrency)))
    close()
    return {"us": (cpu_seconds() - began) / (share * concurrency * tokens) * 1e6}


async def _read(texts: AsyncIterator[str], length: int) -> None:
    """Read one stream, and check that it is complete."""
    characters = 0
    async for text in texts:
        characters += len(text)
    expect(characters, length)
