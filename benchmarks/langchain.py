"""What handlers in LangChain's models cost the thread that streams, and what recording the turn of a graph costs.

The response comes from memory. recorder's handler is linked to the model's requests, or is alone with
LangChain's callbacks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each
from benchmarks.tracers import TRACERS
from benchmarks.workload import cpu_seconds
from recorder.testing import anthropic_messages_frames, openai_chat_frames, song_pieces

TITLE = "LangChain's models with a handler (microseconds of the caller's thread for a token, above the model alone)"
#: Model -> the most that recorder's handler may add (microseconds).
_GOALS = {"ChatOpenAI": {"linked": 20, "alone": 12}, "ChatAnthropic": {"linked": 12, "alone": 7}}
_FRAMES: dict[str, Callable[[list[str]], Any]] = {
    "ChatOpenAI": openai_chat_frames,
    "ChatAnthropic": anthropic_messages_frames,
}
#: So many streams without and with a handler by turns, in each process.
_STREAMS = 8
#: Nodes of the graph, and the most that recording its turn may take (milliseconds).
_NODES, _TURN_GOAL = 5, 1.0


def rows(settings: Settings) -> list[Row]:
    """Both models with each handler, and a graph."""
    tokens, turns = settings.size(2_000, 200), settings.size(200, 20)
    sides = {
        f"{model}, {tracer}": Side(
            "benchmarks.langchain:measured", {"model": model, "tracer": tracer, "tokens": tokens}, folder=True
        )
        for model in _GOALS
        for tracer in TRACERS
    }
    graph = {"graph": Side("benchmarks.langchain:turns", {"turns": turns}, folder=True)}
    found = compare({**sides, **graph}, settings.rounds)
    lines = [
        row
        for model in _GOALS
        for row in _rows(model, {tracer: found[f"{model}, {tracer}"] for tracer in TRACERS}, tokens)
    ]
    return [*lines, _turn_row(found["graph"])]


def _rows(model: str, found: dict[str, list[Measured]], tokens: int) -> list[Row]:
    """What each handler adds: its fastest stream, less the fastest one of all without a handler."""
    bare = min(best(runs, "bare") for runs in found.values())
    bares = [min(runs[turn]["bare"] for runs in found.values()) for turn in range(len(found["silent"]))]
    lines = [Row(f"{model}.astream alone", f"{bare:.1f} us", each(bares, ".1f"))]
    for tracer, runs in found.items():
        added, goal = best(runs, "with") - bare, _GOALS[model].get(tracer)
        times = f"the times of {best(runs, 'times'):,.0f} of {tokens:,} tokens"
        note = f"other threads: {best(runs, 'others'):.0f} us; {times}" if tracer != "silent" else ""
        each_turn = each([run["with"] - run["bare"] for run in runs], ".1f")
        target, met = (f"at most {goal} us", added <= goal) if goal else ("", None)
        name = f"{model}.astream: {TRACERS[tracer][0]} adds"
        lines.append(Row(name, f"{added:.1f} us", each_turn, note, target, met))
    return lines


def _turn_row(found: list[Measured]) -> Row:
    added = best(found, "added")
    return Row(
        f"a turn of a LangGraph graph of {_NODES} nodes: the handler adds", f"{added:.2f} ms",
        each(values(found, "added"), ".2f"), f"without: {best(found, 'bare'):.2f} ms", f"at most {_TURN_GOAL:g} ms",
        added <= _TURN_GOAL,
    )  # fmt: skip


def measured(model: str, tracer: str, tokens: int, folder: str) -> Measured:
    """Microseconds of this thread for a token, without a handler and with this one, and those of other threads."""
    pieces = song_pieces(tokens)
    frames = list(_FRAMES[model](pieces))
    bare, mine, others = [], [], []
    with TRACERS[tracer][1](folder) as (handler, flush, times):
        for _ in range(_STREAMS):
            bare.append(asyncio.run(_stream(model, frames, [])))
            before, thread_before = cpu_seconds(), time.thread_time()
            mine.append(asyncio.run(_stream(model, frames, [handler])))
            flush()
            others.append((cpu_seconds() - before - time.thread_time() + thread_before) / len(frames) * 1e6)
        kept = times(_STREAMS, "".join(pieces))
    return {"bare": min(bare), "with": min(mine), "others": min(others), "times": kept / _STREAMS}


async def _stream(name: str, frames: list[bytes], callbacks: list[Any]) -> float:
    import httpx2

    async def content() -> AsyncIterator[bytes]:
        for frame in frames:
            yield frame

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content())

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        model = _model(name, client, callbacks)
        began = time.thread_time()
        async for _ in model.astream("Sing."):
            pass
        return (time.thread_time() - began) / len(frames) * 1e6


def _model(name: str, client: Any, callbacks: list[Any]) -> Any:
    if name == "ChatOpenAI":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model="gpt-5.4-mini", api_key="any", http_async_client=client, callbacks=callbacks)  # type: ignore[arg-type]
    import anthropic
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(model_name="claude-haiku-5-5", api_key="any", callbacks=callbacks)  # type: ignore[call-arg, arg-type]
    model.__dict__["_async_client"] = anthropic.AsyncAnthropic(api_key="any", http_client=client)
    return model


def turns(turns: int, folder: str) -> Measured:
    """Milliseconds of this thread for a turn of a graph without a model, and what the handler adds."""
    from langgraph.graph import START, MessagesState, StateGraph

    from recorder.integrations.langchain import ChatHistoryCallback

    graph: Any = StateGraph(MessagesState)
    names = [f"node {number}" for number in range(_NODES)]
    for name in names:
        graph.add_node(name, lambda state: {"messages": [("user", "Hi")]})
    for before, after in zip([START, *names], names, strict=False):
        graph.add_edge(before, after)
    compiled = graph.compile()

    def timed(callbacks: list[Any]) -> float:
        began = time.thread_time()
        for _ in range(turns):
            compiled.invoke({"messages": [("user", "Hi")]}, config={"callbacks": callbacks})
        return (time.thread_time() - began) / turns * 1e3

    with ChatHistoryCallback(ours.new_file(folder), max_queue_bytes=2**30) as history:
        pairs = [(timed([]), timed([history])) for _ in range(4)]
    bare = min(before for before, _ in pairs)
    return {"bare": bare, "added": min(after for _, after in pairs) - bare}
