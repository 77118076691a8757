"""Complete messages: recorder compared with other libraries' chat memories, which store each message when it is added.

Storing alone: every side stores one message per call and reads nothing. Turns of requests: the others create a memory
for each request, read the history for the model and store both messages. Recorder gets the complete history, as a model
does, compares it with the stored messages, and stores the new messages and the run.

The first conversation of every side is not measured: it imports libraries, connects, and creates the tables.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from recorder.core.ids import new_id
from tests import postgres
from tests.oracle import sql

if TYPE_CHECKING:
    from recorder import ChatHistoryCallback

TITLE = "Whole messages, stored when they are added (messages/s)"
#: Called after the first conversation; the time counts from then on.
Begin = Callable[[], None]
#: Turns of each conversation, of two messages.
TURNS = 5
_QUESTION = "Write me a song about sparkling water."
_ANSWER = "Bubbles rising, clear and bright, sparkling water, pure delight. " * 8
_NAMES = {
    "langchain": "LangChain's SQLChatMessageHistory, storing alone",
    "agents": "OpenAI Agents' SQLAlchemySession, storing alone",
    "langchain turns": "LangChain's, turns of requests",
    "agents turns": "OpenAI Agents', turns of requests",
    "recorder": "recorder: add_messages, storing alone",
    "recorder turns": "recorder: a run a turn, the whole history sent along each time",
}
#: For each of recorder's sides: the sides with the same work, which the target is for, and sides with less work.
_BESIDE = {
    "recorder": (("langchain", "agents"), ()),
    "recorder turns": (("langchain turns", "agents turns"), ("langchain", "agents")),
}


def rows(settings: Settings) -> list[Row]:
    """On both databases."""
    os.environ[postgres.GIVEN] = postgres.server()
    few, many = settings.size(40, 10), settings.size(4_000, 400)
    lines = []
    for kind in ("sqlite", "postgres"):
        sides = {}
        for name, count in (("langchain", few), ("agents", few), ("recorder", many)):
            for turns in (False, True):
                arguments = {"kind": kind, "conversations": count, "turns": turns}
                key = f"{name} turns" if turns else name
                sides[key] = Side(f"benchmarks.messages:{name}", arguments, folder=True)
        found = compare(sides, settings.rounds)
        lines += [_row(name, kind, found) for name in sides]
    return lines


def _row(name: str, kind: str, found: dict[str, list[Measured]]) -> Row:
    rate = best(found[name], "messages_per_second", max)
    shown = each(values(found[name], "messages_per_second"), ",.0f")
    if name not in _BESIDE:
        return Row(f"{_NAMES[name]}, {kind}", f"{rate:,.0f}/s", shown)
    alike, less = _BESIDE[name]
    over = {other: rate / best(found[other], "messages_per_second", max) for other in (*alike, *less)}
    ratio = ", ".join(f"{times:.0f} x {other}" for other, times in over.items())
    met = min(over[other] for other in alike) >= 50
    return Row(f"{_NAMES[name]}, {kind}", f"{rate:,.0f}/s", shown, ratio, "at least 50 x", met)


def langchain(folder: str, kind: str, conversations: int, *, turns: bool = False) -> Measured:
    """One history per conversation, or with `turns` one per turn, which reads it; all use one engine."""
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from langchain_core.messages import AIMessage, HumanMessage
    from sqlalchemy.ext.asyncio import create_async_engine

    async def story(url: str, begin: Begin) -> None:
        engine = create_async_engine(url)
        for number in range(conversations):
            history = SQLChatMessageHistory(f"c{number}", connection=engine)
            for _ in range(TURNS):
                if turns:
                    history = SQLChatMessageHistory(f"c{number}", connection=engine)
                    await history.aget_messages()
                await history.aadd_message(HumanMessage(_QUESTION))
                await history.aadd_message(AIMessage(_ANSWER))
            if number == 0:
                begin()
        await engine.dispose()

    return _measured(
        folder, kind, conversations, "message_store", lambda url, begin: asyncio.run(story(url, begin))
    )


def agents(folder: str, kind: str, conversations: int, *, turns: bool = False) -> Measured:
    """One session per conversation, or with `turns` one per turn, which reads it; all use one engine."""
    from agents.extensions.memory import SQLAlchemySession
    from sqlalchemy.ext.asyncio import create_async_engine

    async def story(url: str, begin: Begin) -> None:
        engine = create_async_engine(url)
        for number in range(conversations):
            session = SQLAlchemySession(f"c{number}", engine=engine, create_tables=number == 0)
            for _ in range(TURNS):
                if turns:
                    session = SQLAlchemySession(f"c{number}", engine=engine, create_tables=number == 0)
                    await session.get_items()
                await session.add_items([{"role": "user", "content": _QUESTION}])
                await session.add_items([{"role": "assistant", "content": _ANSWER}])  # type: ignore[list-item,typeddict-item]
            if number == 0:
                begin()
        await engine.dispose()

    return _measured(
        folder, kind, conversations, "agent_messages", lambda url, begin: asyncio.run(story(url, begin))
    )


def recorder(folder: str, kind: str, conversations: int, *, turns: bool = False) -> Measured:
    """Single messages, or with `turns` one run per turn. `close` is measured."""

    def story(url: str, begin: Begin) -> None:
        history = ours.open_history(url.replace("+aiosqlite", "").replace("+asyncpg", ""))
        store = _record if turns else _add
        store(history, range(1))
        history.flush().wait()
        begin()
        store(history, range(1, conversations))
        history.close().wait()

    return _measured(folder, kind, conversations, "messages", story)


def _add(history: ChatHistoryCallback, conversations: range) -> None:
    from recorder.messages import AIMessage, HumanMessage

    for number in conversations:
        for _ in range(TURNS):
            history.add_messages([HumanMessage(_QUESTION)], conversation_id=f"c{number}")
            history.add_messages([AIMessage(_ANSWER)], conversation_id=f"c{number}")


def _record(history: ChatHistoryCallback, conversations: range) -> None:
    from recorder.messages import AIMessage, ChatGeneration, HumanMessage, LLMResult

    for number in conversations:
        messages: list[Any] = []
        metadata = {"conversation_id": f"c{number}"}
        for _ in range(TURNS):
            run_id = UUID(new_id())
            messages.append(HumanMessage(_QUESTION))
            history.on_chat_model_start({}, [list(messages)], run_id=run_id, metadata=metadata)
            messages.append(AIMessage(_ANSWER))
            history.on_llm_end(LLMResult([[ChatGeneration(messages[-1])]]), run_id=run_id)


def _measured(
    folder: str, kind: str, conversations: int, table: str, story: Callable[[str, Begin], None]
) -> Measured:
    if kind == "postgres":
        plain = postgres.new_database(empty=table != "messages")
        url = plain.replace("postgresql://", "postgresql+asyncpg://")
    else:
        plain = ours.new_file(folder)
        url = plain.replace("sqlite://", "sqlite+aiosqlite://")
    began: list[float] = []
    story(url, lambda: began.append(time.perf_counter()))
    seconds = time.perf_counter() - began[0]
    [(stored,)] = sql(plain, f"SELECT count(*) FROM {table}")
    if kind == "postgres":
        postgres.drop(plain)
    expect(stored, conversations * TURNS * 2)
    return {"messages_per_second": (conversations - 1) * TURNS * 2 / seconds}
