"""Anthropic's streams through real sockets, unpaced: what a token costs the whole process."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

from benchmarks import ours, peers
from benchmarks.harness import Measured, Settings, Side, best, compare, provider, tell, values
from benchmarks.peers import expect
from benchmarks.streams import COALESCED, drive
from benchmarks.table import Row, each, missing

TITLE = "Anthropic's streams, unpaced: processor time of the whole process a token (microseconds)"
TO_SDK = 0.6

_LABELS = {
    "sdk": "sdk: Anthropic SDK, nothing recorded",
    "langchain": "langchain: ChatAnthropic.astream, nothing recorded",
    "bare": "our ChatAnthropic.astream, nothing recorded",
    "tokens": "with ChatHistoryCallback, tokens recorded",
    "wire": "with ChatHistoryCallback, tokens and frames recorded",
}


def rows(settings: Settings) -> list[Row]:
    """One stream at a time: with as many tokens in an HTTP chunk as fit, and with one token in each."""
    few = settings.size(15, 3)
    found = _rows("1 stream at a time, 1,000 tokens each", few, settings, ["--chunk-bytes", COALESCED])
    if not settings.quick:
        found += _rows("the same, an HTTP chunk a token", few, settings, [])
    return found


def _rows(what: str, streams: int, settings: Settings, options: list[str]) -> list[Row]:
    tell(f"  {what}")
    with provider("--tokens", "1000", *options) as url:
        traffic = {"url": url, "tokens": 1000, "streams": streams, "concurrency": 1}
        sides = {name: _side(name, traffic) for name in _LABELS}
        if find_spec("langchain_anthropic") is None:
            sides.pop("langchain")
        runs = compare(sides, settings.rounds)
    return [Row(f"**{what}**", ""), *(_row(name, runs) for name in _LABELS)]


def _side(name: str, traffic: dict[str, Any]) -> Side:
    if name in ("tokens", "wire"):
        return Side("benchmarks.claude:recorded", {**traffic, "capture": name}, folder=True)
    return Side(f"benchmarks.claude:{name}", traffic)


def _row(name: str, runs: dict[str, list[Measured]]) -> Row:
    if name not in runs:
        return missing(_LABELS[name], "pip install langchain-anthropic")
    cost = best(runs[name], "us")
    ratio = cost / best(runs["sdk"], "us")
    judged = name == "wire"
    return Row(
        _LABELS[name],
        f"{cost:,.1f} us",
        each(values(runs[name], "us")),
        f"{ratio:.3f} x sdk" if name != "sdk" else "",
        f"under {TO_SDK:g} x" if judged else "",
        ratio < TO_SDK if judged else None,
    )


def sdk(**traffic: Any) -> Measured:
    """The official SDK."""
    return asyncio.run(drive(peers.anthropic_client, peers.anthropic_stream, **traffic))


def langchain(**traffic: Any) -> Measured:
    """LangChain's model."""
    return asyncio.run(drive(peers.langchain_anthropic_model, peers.langchain_stream, **traffic))


def bare(**traffic: Any) -> Measured:
    """Our model without a handler."""
    return asyncio.run(drive(ours.anthropic_model, ours.model_stream, **traffic))


def recorded(folder: str, capture: str, **traffic: Any) -> Measured:
    """Our model with the handler; its close is part of the cost."""
    database = ours.new_file(folder)
    history = ours.open_history(database, capture=capture)

    def model(url: str) -> Any:
        return ours.anthropic_model(url, [history])

    def close() -> None:
        history.close().wait()

    found = asyncio.run(drive(model, ours.model_stream, close=close, **traffic))
    expect(ours.stored_tokens(database), (traffic["streams"] + 1) * traffic["tokens"])
    return found
