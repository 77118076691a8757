"""What the handler for LangChain costs the thread that streams a model, and the turn of a graph.

The response comes from memory. The handler is linked to the model's requests, or alone with LangChain's callbacks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each
from recorder.testing import anthropic_messages_frames, openai_chat_frames, song_pieces

TITLE = "LangChain's models with a handler (microseconds of the caller's thread for a token, above the model alone)"
#: Model -> the most that the handler may add (microseconds), linked and alone.
_GOALS = {"ChatOpenAI": (20, 12), "ChatAnthropic": (12, 7)}
_FRAMES: dict[str, Callable[[list[str]], Any]] = {
    "ChatOpenAI": openai_chat_frames,
    "ChatAnthropic": anthropic_messages_frames,
}
#: Nodes of the graph, and the most that recording its turn may take (milliseconds).
_NODES, _TURN_GOAL = 5, 1.0


def rows(settings: Settings) -> list[Row]:
    """Both models, and a graph."""
    tokens, turns = settings.size(5_000, 500), settings.size(200, 20)
    sides = {
        name: Side("benchmarks.langchain:measured", {"model": name, "tokens": tokens}, folder=True)
        for name in _GOALS
    }
    graph = {"graph": Side("benchmarks.langchain:turns", {"turns": turns}, folder=True)}
    found = compare({**sides, **graph}, settings.rounds)
    return [*(row for name in sides for row in _rows(name, found[name])), _turn_row(found["graph"])]


def _rows(name: str, found: list[Measured]) -> list[Row]:
    alone = Row(f"{name}.astream alone", f"{best(found, 'bare'):.1f} us", each(values(found, "bare"), ".1f"))
    lines = [alone]
    for what, goal in zip(("linked", "alone"), _GOALS[name], strict=True):
        added = best(found, what)
        lines.append(
            Row(
                f"{name}.astream: the handler {what} adds", f"{added:.1f} us", each(values(found, what), ".1f"),
                "", f"at most {goal} us", added <= goal,
            )
        )  # fmt: skip
    return lines


def _turn_row(found: list[Measured]) -> Row:
    added = best(found, "added")
    return Row(
        f"a turn of a LangGraph graph of {_NODES} nodes: the handler adds", f"{added:.2f} ms",
        each(values(found, "added"), ".2f"), f"without: {best(found, 'bare'):.2f} ms", f"at most {_TURN_GOAL:g} ms",
        added <= _TURN_GOAL,
    )  # fmt: skip


def measured(model: str, tokens: int, folder: str) -> Measured:
    """Microseconds of this thread for a token: without a handler, and what each kind of handler adds."""
    from recorder.integrations.langchain import ChatHistoryCallback

    frames = list(_FRAMES[model](song_pieces(tokens)))
    history: Any = ChatHistoryCallback(ours.new_file(folder), max_queue_bytes=2**30)
    unlinked: Any = ChatHistoryCallback(ours.new_file(folder), max_queue_bytes=2**30)
    history._unlink()
    unlinked._unlink()
    found: dict[str, list[float]] = {"bare": [], "linked": [], "alone": []}
    for _ in range(4):
        found["bare"].append(asyncio.run(_stream(model, frames, [])))
        found["alone"].append(asyncio.run(_stream(model, frames, [unlinked])))
        relink = _linked(history)
        found["linked"].append(asyncio.run(_stream(model, frames, [history])))
        relink()
        history.flush().wait()
        unlinked.flush().wait()
    history.close().wait()
    unlinked.close().wait()
    bare = min(found["bare"])
    return {"bare": bare, **{what: min(found[what]) - bare for what in ("linked", "alone")}}


def _linked(history: Any) -> Callable[[], None]:
    from recorder.instrumentation import process

    return process.attach_linked()


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
