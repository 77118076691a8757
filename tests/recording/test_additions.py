"""Messages that no model was called for: `history.add_messages`, as a chat memory has it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core import messages as langchain
from sqlalchemy import make_url

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import now
from recorder.core.waitable import Wait
from recorder.errors import Closed, ConfigError, StoreError
from recorder.export import export, import_
from recorder.messages import (
    AIMessage,
    ChatGeneration,
    ChatMessage,
    HumanMessage,
    LLMResult,
    SystemMessage,
    ToolMessage,
)
from recorder.models import ChatOpenAI
from recorder.replay import Replay
from recorder.storage.rows import Batch
from recorder.storage.store import SqlStore
from recorder.testing import LoopbackProvider, MemoryStore
from tests import postgres
from tests.oracle import FaultyStore, away, begin, finish, new_url, record, run_python, sql, start_python


def line(url: str, conversation_id: str = "c") -> list[tuple[str, str]]:
    """Role and content of each message of a conversation, which is one line: no branch, no hole."""
    rows = sql(
        url,
        "SELECT role, content, position, branch FROM transcripts WHERE conversation_id = ? "
        "AND message_id IS NOT NULL ORDER BY position",
        conversation_id,
    )  # fmt: skip
    assert [(position, branch) for *_, position, branch in rows] == [(place, 1) for place in range(len(rows))]
    return [(role, content) for role, content, *_ in rows]


# -- where they stand ----------------------------------------------------------------------------------------


def test_what_is_added_stands_below_what_was_there(database: str) -> None:
    """In one call or several, in one transaction or several, and by another recorder later."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages([SystemMessage("Be kind."), HumanMessage("Is my order there?")])
        history.add_messages([AIMessage("It left on Monday.")])
        history.flush().wait(10)
        history.add_messages("And today?")
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(("assistant", "Tomorrow."))
    assert line(database) == [
        ("system", "Be kind."),
        ("user", "Is my order there?"),
        ("assistant", "It left on Monday."),
        ("user", "And today?"),
        ("assistant", "Tomorrow."),
    ]
    rows = sql(database, "SELECT status, model, run_id FROM transcripts")
    assert set(rows) == {("complete", None, None)}
    assert sql(database, "SELECT count(*) FROM runs") == [(0,)]


def test_the_same_words_again_are_a_message_again(database: str) -> None:
    """Nobody is asked twice for nothing."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for _ in range(3):
            history.add_messages("Are you there?")
            history.flush().wait(10)
        history.add_messages(["Are you there?"] * 2)
    assert line(database) == [("user", "Are you there?")] * 5


def test_a_model_goes_on_where_they_end(database: str) -> None:
    """Sent along as its history they are recognised, and what is added after its reply stands below it."""
    earlier = [HumanMessage("Is my order there?"), AIMessage("It left on Monday.")]
    with ChatHistoryCallback(database, conversation_id="c") as history, LoopbackProvider() as provider:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
        history.add_messages(earlier)
        song = chat.invoke([*earlier, HumanMessage("Sing.")]).text
        history.add_messages([AIMessage("Anything else?")])
    assert line(database) == [
        ("user", "Is my order there?"),
        ("assistant", "It left on Monday."),
        ("user", "Sing."),
        ("assistant", song),
        ("assistant", "Anything else?"),
    ]


def test_in_one_transaction_they_stand_where_they_were_said(database: str) -> None:
    """Before, during and after a run that began and ended meanwhile, which one commit stores."""
    with ChatHistoryCallback(database, conversation_id="c", flush_interval=3600) as history:
        history.add_messages("first", conversation_id="other")  # the writer is idle no more
        history.flush().wait(10)
        commits = history.stats().commits
        history.add_messages("one")
        run_id = begin(history, HumanMessage("one"), HumanMessage("two"))
        finish(history, run_id, "three")
        history.add_messages("four")
        history.flush().wait(10)
        assert history.stats().commits == commits + 1
    assert [content for _, content in line(database)] == ["one", "two", "three", "four"]
    # Also to who forgets the ORDER BY.
    found = sql(database, "SELECT content FROM messages")
    assert found == [("first",), ("one",), ("two",), ("three",), ("four",)]


def test_a_server_whose_clock_is_behind_goes_on_all_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asked and was told is the end of the conversation, for readers and for what is added next."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(["one", ("assistant", "two")])
    for module in ("recorder.chat_history_callback", "recorder.recording.recorder"):
        monkeypatch.setattr(f"{module}.now", lambda: now() - timedelta(minutes=1))
    with ChatHistoryCallback(database, conversation_id="c") as history, Replay(database) as replay:
        sent = [HumanMessage("one"), AIMessage("two"), HumanMessage("three")]
        finish(history, begin(history, *sent), "four")
        history.flush().wait(10)
        assert replay.messages("c") == [*sent, AIMessage("four")]
        history.add_messages("three")  # the same words as a message further up
    assert [content for _, content in line(database)] == ["one", "two", "three", "four", "three"]
    assert sql(database, "SELECT position FROM messages ORDER BY created_at DESC LIMIT 1") == [(4,)]


def test_asking_again_moves_nothing(database: str) -> None:
    """In one transaction as in several: while an old question is asked again, what is added stands at the end."""
    with ChatHistoryCallback(database, conversation_id="c", flush_interval=3600) as history:
        history.add_messages(["one", ("assistant", "two")])
        history.flush().wait(10)
        again = begin(history, HumanMessage("one"))
        history.add_messages(("assistant", "two"))
        finish(history, again)
    assert [content for _, content in line(database)] == ["one", "two", "two"]


@pytest.mark.parametrize("all_messages", [False, True], ids=["only what is new", "the whole history"])
def test_a_clock_that_was_set_back(
    database: str, all_messages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's turn is forgotten: what a run says after an addition is read after it all the same."""
    times = [datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in (11, 10)]
    with ChatHistoryCallback(database, conversation_id="c") as history, Replay(database) as replay:
        monkeypatch.setattr("recorder.recording.recorder.now", lambda: times[0])
        monkeypatch.setattr("recorder.chat_history_callback.now", lambda: times[1])
        for turn in range(2):
            history.add_messages(f"added {turn}")
            history.flush().wait(10)
            earlier = replay.messages("c") if all_messages else []
            run_id = begin(history, *earlier, HumanMessage(f"question {turn}"))
            history.flush().wait(10)
            finish(history, run_id, f"answer {turn}")
            history.flush().wait(10)
        found = [message.text for message in replay.messages("c")]
    expected = [f"{what} {turn}" for turn in range(2) for what in ("added", "question", "answer")]
    assert found == expected == [content for _, content in line(database)]


def test_each_conversation_has_its_own(database: str) -> None:
    """What is said closest to the call wins, as with runs."""
    with ChatHistoryCallback(database, conversation_id="a") as history:
        with history.conversation("b"):
            history.add_messages("to b")
            history.add_messages("to c", conversation_id="c")
        history.add_messages("to a")
    assert [line(database, name) for name in "abc"] == [[("user", f"to {name}")] for name in "abc"]


def test_hundreds_of_conversations_are_one_commit(database: str) -> None:
    """And each has all of its messages in order."""
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        history.add_messages("first", conversation_id="warm")
        history.flush().wait(10)
        for place in range(5):
            for number in range(200):
                history.add_messages(f"{number}:{place}", conversation_id=f"c{number}")
        history.flush().wait(10)
        assert history.stats().commits == 2
        assert (history.stats().messages_added, history.stats().messages_stored) == (1_001, 1_001)
        assert history.stats().queued_bytes == 0
    for number in (0, 77, 199):
        assert line(database, f"c{number}") == [("user", f"{number}:{place}") for place in range(5)]


# -- what they are -------------------------------------------------------------------------------------------


def test_everything_that_a_model_takes(database: str) -> None:
    """LangChain's messages, dicts, tuples, blocks and calls; they come back whole."""
    call = {"name": "weather", "args": {"city": "Bern"}, "id": "call_1"}
    picture: list[dict[str, Any]] = [
        {"type": "text", "text": "This?"},
        {"type": "image_url", "image_url": {"url": "data:,x"}},
    ]
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(
            [
                langchain.SystemMessage("Be kind."),
                {"role": "user", "content": picture},
                AIMessage("", tool_calls=[call]),
                ToolMessage("Rain \0 \ud800.", tool_call_id="call_1"),
            ]
        )
        picture[0]["text"] = "changed meanwhile"
    with Replay(database) as replay:
        system, question, answer, result = replay.messages("c")
    assert (system, question.text, question.content[1]) == (SystemMessage("Be kind."), "This?", picture[1])
    assert isinstance(answer, AIMessage)
    assert [dict(each) for each in answer.tool_calls] == [{**call, "type": "tool_call"}]
    assert (result.text, getattr(result, "tool_call_id", None)) == ("Rain \0 \ud800.", "call_1")


def test_a_conversation_is_as_old_as_its_first_message(database: str) -> None:
    """Whoever opened it, and whatever else the same transaction stores of it."""
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        history.add_messages("first", conversation_id="warm")
        history.flush().wait(10)
        for name in ("run first", "run last"):
            with history.conversation(name):
                for step in ("run", "add") if name == "run first" else ("add", "run"):
                    record(history, HumanMessage("asked")) if step == "run" else history.add_messages("added")
    oldest = "SELECT conversation_id, min(created_at) FROM messages GROUP BY 1 ORDER BY 1"
    assert sql(database, "SELECT id, created_at FROM conversations ORDER BY 1") == sql(database, oldest)


@pytest.mark.parametrize("odd", ["a\0b", "a\ud800b", "\ufdd00000"])
def test_odd_letters_in_ids_and_roles(database: str, odd: str) -> None:
    """They are stored and found again like any others."""
    with ChatHistoryCallback(database, conversation_id=odd) as history:
        history.add_messages([(odd, "one"), "two"])
    with Replay(database) as replay:
        assert replay.messages(odd) == [ChatMessage("one", role=odd), HumanMessage("two")]


def test_nothing_is_nothing(database: str) -> None:
    """An empty list opens no conversation."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages([])
    assert sql(database, "SELECT count(*) FROM conversations") == [(0,)]


@pytest.mark.parametrize(
    ("messages", "conversation_id", "words"),
    [
        ("Hello!", None, "Messages without a run need a conversation; pass conversation_id='...'"),
        ("Hello!", "", "conversation_id is empty"),
        ("Hello!", "x" * 256, "has 256 characters and the limit is 255"),
        (["Hello!", 7], "c", "7"),
    ],
)
def test_bad_input_is_refused_whole(messages: Any, conversation_id: str | None, words: str) -> None:
    """It says what is wrong, and nothing of it is stored."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history, pytest.raises(ConfigError) as refused:
        history.add_messages(messages, conversation_id=conversation_id)
    assert words in str(refused.value)
    assert (store.messages, history.stats().messages_added) == ({}, 0)


@pytest.mark.parametrize("messages", ["too late", []])
def test_after_close_it_says_so(messages: Any) -> None:
    """A call that a person makes, unlike a callback; also where there is nothing to store."""
    history = ChatHistoryCallback(store=MemoryStore(), conversation_id="c")
    history.close().wait(10)
    with pytest.raises(Closed):
        history.add_messages(messages)


# -- the way to the database ---------------------------------------------------------------------------------


class Gated(FaultyStore):
    """Appends wait until `gate` is over."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.gate: Wait[None] = Wait()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            await self.gate
        await super().append(batch)


def add_for_ever(history: ChatHistoryCallback) -> None:
    """Until it is refused."""
    while True:
        history.add_messages("x" * 1_000)


def fill(history: ChatHistoryCallback) -> int:
    """Add until the queue is full; how many were taken."""
    with pytest.raises(StoreError, match=r"The queue is full \(.* bytes\) and 1 messages were not accepted"):
        add_for_ever(history)
    return history.stats().messages_added


async def _on_a_loop(history: ChatHistoryCallback) -> int:
    return fill(history)


@pytest.mark.parametrize("way", [fill, lambda history: asyncio.run(_on_a_loop(history))], ids=["off", "on"])
def test_a_full_queue_is_told_and_nothing_is_half_taken(way: Callable[[ChatHistoryCallback], int]) -> None:
    """The database stalls: within the bound they are taken, then each call says that it took nothing."""
    store = Gated()
    with ChatHistoryCallback(
        store=store, conversation_id="c", max_queue_bytes=100_000, block_timeout=0.01
    ) as history:
        accepted = way(history)
        assert 100_000 < history.recorder.queue.bytes <= 100_000 * 9 / 8
        assert accepted > 50
        store.gate.set(None)
        history.flush().wait(10)
        assert history.stats().messages_stored == accepted
        history.add_messages("there is room again")


_LONG = "x" * 10_000


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("", tool_calls=[{"name": "write", "args": {"text": _LONG}, "id": "1"}]),
        AIMessage("", invalid_tool_calls=[{"name": "write", "args": _LONG, "id": "1"}]),
        AIMessage("", additional_kwargs={"audio": _LONG}),
    ],
    ids=["calls", "invalid calls", "others"],
)
def test_calls_take_room_too(message: AIMessage) -> None:
    """What a model wrote for a tool may be long where its text is none: as added, as sent, as the reply."""
    store = Gated()
    with ChatHistoryCallback(store=store, conversation_id="c") as history:
        history.add_messages(message)
        run_id = begin(history, message)
        history.on_llm_end(LLMResult(generations=[[ChatGeneration(message)]]), run_id=run_id)
        held = history.stats().queued_bytes
        store.gate.set(None)
    assert held >= 3 * len(_LONG)
    assert history.stats().queued_bytes == 0


def test_off_a_loop_it_waits_for_room() -> None:
    """As long as the database goes on, more than the queue holds is taken."""
    with ChatHistoryCallback(
        store=MemoryStore(), conversation_id="c", max_queue_bytes=20_000, block_timeout=3600
    ) as history:
        for number in range(500):
            history.add_messages(f"{number} " + "x" * 500)
    assert history.stats().messages_stored == 500


def test_who_waits_for_room_is_told_of_the_close() -> None:
    """Room comes when the last batch is given up, and nobody is there any more to store what would go into it."""
    history = ChatHistoryCallback(
        store=Gated(), conversation_id="c", max_queue_bytes=10_000, block_timeout=3600
    )
    history.add_messages("x" * 10_000)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(history.add_messages, "late")
        while history.recorder.queue._capacity_wait is None:
            assert not late.done()
        stats = history.close(timeout=0.1).wait(10)
        with pytest.raises(Closed):
            late.result(10)
    assert (stats.messages_added, stats.messages_stored) == (1, 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_that_failed_is_tried_again(
    database: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it did anything, or after it did all and the answer was lost: each message is stored once."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    faults: Any = {when: [away, away]}
    store = FaultyStore(SqlStore(database), **faults)
    with ChatHistoryCallback(database, store=store, conversation_id="c") as history:
        for number in range(20):
            history.add_messages(f"{number % 2}")
    assert len(store.tried) >= 3
    assert line(database) == [("user", f"{number % 2}") for number in range(20)]


def test_what_can_never_be_stored_harms_no_other_conversation(caplog: pytest.LogCaptureFixture) -> None:
    """It is left out and told, without a word of what was said."""

    def refuse(batch: Batch) -> None:
        if any(part.conversation_id == "bad" for part in batch.additions):
            raise ValueError("these bytes can not be stored")

    store = FaultyStore(MemoryStore(), before=[None, *[refuse] * 20])
    with ChatHistoryCallback(store=store, flush_interval=3600) as history:
        history.add_messages("first", conversation_id="first")
        history.flush().wait(10)
        for name in ("a", "bad", "b"):
            history.add_messages(["secret", "secret"], conversation_id=name)
        history.flush().wait(10)
        stats = history.stats()
    assert (stats.messages_added, stats.messages_stored, stats.queued_bytes) == (7, 5, 0)
    assert (
        "2 messages added to conversation 'bad' cannot be stored: these bytes can not be stored"
        in caplog.text
    )
    assert "secret" not in caplog.text


def test_close_with_the_database_away_says_how_many_were_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does a flush that waited for them."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    history = ChatHistoryCallback(
        store=FaultyStore(MemoryStore(), before=[away] * 10**6), conversation_id="c"
    )
    history.add_messages(["one", "two"])
    flush = history.flush()
    stats = history.close(timeout=0.1).wait(10)
    assert (stats.messages_added, stats.messages_stored, stats.queued_bytes) == (2, 0, 0)
    with pytest.raises(StoreError, match="0 tokens and 2 added messages were not stored"):
        flush.wait(10)


def test_a_database_that_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waited in the queue is counted as lost."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)

    class Absent(MemoryStore):
        async def open(self) -> None:
            raise ConnectionError("nobody there")

    history = ChatHistoryCallback(store=Absent(), conversation_id="c")
    history.add_messages(["one", "two"])
    flush = history.flush()
    stats = history.close(timeout=0.1).wait(10)
    assert (stats.messages_stored, stats.queued_bytes) == (0, 0)
    with pytest.raises(StoreError, match="0 tokens and 2 added messages were not stored"):
        flush.wait(10)


def test_an_exit_stores_them(tmp_path: Path) -> None:
    """Without `close`; and where it cannot, one line says how many were not stored."""
    code = """
import logging, sys
import recorder.storage.dialects.sqlite, recorder.recording.recorder
from recorder import ChatHistoryCallback
logging.disable()
recorder.storage.dialects.sqlite.BUSY_TIMEOUT = 0.001
recorder.recording.recorder.EXIT_TIMEOUT = 0.2
history = ChatHistoryCallback(sys.argv[1], conversation_id="c")
history.add_messages(["one", "two"])
"""
    url = new_url(tmp_path)
    assert run_python(code, url).stderr == ""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        stderr = run_python(code, url).stderr
    assert stderr.startswith("recorder: 0 tokens and 2 added messages were not stored")
    assert line(url) == [("user", "one"), ("user", "two")]


def test_a_forked_child_adds_for_itself(database: str) -> None:
    """Its messages are stored by a writer of its own; what waits in its parent's queue, by the parent."""
    code = """
import os, sys
from recorder import ChatHistoryCallback
history = ChatHistoryCallback(sys.argv[1], conversation_id="c", flush_interval=3600)
history.add_messages("parent")
history.flush().wait(10)
history.add_messages("later")
if os.fork() == 0:
    history.add_messages("child")
    history.close().wait(10)
    os._exit(0)
assert os.wait()[1] == 0
history.close().wait(10)
"""
    done = run_python(code, database)
    assert (done.returncode, done.stderr) == (0, "")
    assert line(database) == [("user", "parent"), ("user", "child"), ("user", "later")]


ENDLESS = """
import random, sys
from recorder import ChatHistoryCallback
from tests.oracle import begin, finish, say

url, seed, *numbers = sys.argv[1:]
chance, following = random.Random(int(seed)), dict(zip("abc", map(int, numbers)))
history = ChatHistoryCallback(url, flush_interval=chance.choice([0, 0.005, 0.02]))
while True:
    name, count = chance.choice("abc"), chance.randint(1, 4)
    texts = [str(following[name] + place) for place in range(count)]
    if count == 2:
        with history.conversation(name):
            run_id = begin(history, texts[0])
        say(history, run_id, texts[1])
        finish(history, run_id, texts[1])
    else:
        history.add_messages(texts, conversation_id=name)
    following[name] += count
    if chance.random() < 0.1:
        history.flush().wait(10)
        print(*following.values(), flush=True)
"""


def killed(url: str, seed: int, numbers: list[int]) -> list[int]:
    """A process adds the next numbers to three conversations, in runs and without, and is killed; what it was told."""
    victim = start_python(ENDLESS, url, seed, *numbers)
    assert victim.stdout is not None
    lines = [victim.stdout.readline() for _ in range(random.Random(seed).randint(1, 40))]
    victim.kill()
    out, errors = victim.communicate(timeout=10)
    assert errors == ""
    complete = [text for text in [*lines, *out.splitlines(keepends=True)] if text.endswith("\n")]
    return [int(number) for number in complete[-1].split()]


def test_killed_again_and_again(database: str) -> None:
    """What was acknowledged is stored, what is stored has no hole, and the next process goes on below it."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    numbers = [0, 0, 0]
    for number in range(3):
        acknowledged = killed(database, seed + number, numbers)
        query = "SELECT content, position FROM messages WHERE conversation_id = ? ORDER BY position"
        found = [sql(database, query, name) for name in "abc"]
        assert found == [[(str(place), place) for place in range(len(one))] for one in found]
        numbers = [len(one) for one in found]
        assert all(here >= there for here, there in zip(numbers, acknowledged, strict=True))


def test_two_that_add_at_the_same_moment_make_one_line(database: str) -> None:
    """Each goes below what the other stored just before, with the same words too; on any isolation level."""
    if database.startswith("postgresql"):
        name = make_url(database).database
        postgres.fetch(
            database, f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
        )
    one = ChatHistoryCallback(database, conversation_id="c", flush_interval=0)
    other = ChatHistoryCallback(database, conversation_id="c", flush_interval=0)
    with one, other:
        for number in range(100):
            one.add_messages([f"one {number}", "both"])
            other.add_messages([f"other {number}", "both"])
    found = [content for _, content in line(database)]
    assert found.count("both") == 200
    for name in ("one", "other"):
        assert [text for text in found if text.startswith(name)] == [
            f"{name} {number}" for number in range(100)
        ]
    with Replay(database) as replay:
        assert [message.text for message in replay.messages("c")] == found


def test_one_that_was_stopped_in_its_transaction_stops_nobody(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other waits for a while, says so, and adds beside it."""
    monkeypatch.setattr("recorder.storage.dialects.postgres.LOCK_WAIT", 0.05)

    async def story() -> None:
        stopped = SqlStore(postgres_url)
        await stopped.open()
        async with stopped._transactions.locking(["c"]):
            history = ChatHistoryCallback(postgres_url, conversation_id="c")
            history.add_messages("one")
            await history.flush()
            assert history.stats().messages_stored == 1
            await history.close()
        await stopped.close()

    asyncio.run(story())
    assert line(postgres_url) == [("user", "one")]
    assert "Another process has held the lock of the same conversations for 0.05 s" in caplog.text


# -- read again ----------------------------------------------------------------------------------------------


def test_they_are_read_along_the_newest_branch(database: str) -> None:
    """What is sent on with the next question; also on an event loop."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(["one", ("assistant", "two")])
        finish(history, begin(history, HumanMessage("ONE")), "TWO")
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for text in ("edited", "edited again"):
            finish(history, begin(history, HumanMessage("one"), HumanMessage(text)), "three")
    expected = [HumanMessage("one"), HumanMessage("edited again"), AIMessage("three")]
    with Replay(database) as replay:
        assert replay.messages("c") == expected
        assert asyncio.run(replay.amessages("c")) == expected


def test_an_unknown_conversation_has_said_nothing(database: str) -> None:
    """And the beginning of an id is not the id: what another user said stays theirs."""
    with ChatHistoryCallback(database) as history:
        history.add_messages("mine", conversation_id="user-12")
    with Replay(database) as replay:
        assert replay.messages("user-1") == []
        assert replay.messages("nobody") == []
        assert replay.messages("user-12") == [HumanMessage("mine")]


@pytest.mark.parametrize(
    ("id", "words"), [(7, "must be a str, not int"), (uuid.uuid4(), "not UUID"), ("", "is empty")]
)
def test_what_is_no_id_is_refused(database: str, id: Any, words: str) -> None:
    """As when it is recorded; an empty answer would read as a conversation that has not begun."""
    with Replay(database) as replay, pytest.raises(ConfigError, match=words):
        replay.messages(id)


def test_each_turn_reads_what_the_last_one_added(database: str) -> None:
    """A memory: read, answer, add; the replay sees what was committed after it was opened."""
    with Replay(database) as replay, ChatHistoryCallback(database) as history:
        for turn in range(3):
            messages = replay.messages("c")
            assert len(messages) == 2 * turn
            history.add_messages([f"question {turn}", ("assistant", f"answer {turn}")], conversation_id="c")
            history.flush().wait(10)
    assert [content for _, content in line(database)][-2:] == ["question 2", "answer 2"]


def test_who_watches_is_told_of_them(database: str) -> None:
    """On both databases; without a run, too."""

    async def story() -> bool:
        store = SqlStore(database, read_only=True)
        watch = await store.watch()
        async with ChatHistoryCallback(database, conversation_id="c") as history:
            await history.flush()
            while await watch.wait_for_commit(0.2):  # that it is there
                pass
            history.add_messages("one")
            await history.flush()
            committed = await watch.wait_for_commit(5)
        await watch.close()
        await store.close()
        return committed

    assert asyncio.run(story())


def test_a_conversation_without_runs_is_exported(database: str, tmp_path: Path) -> None:
    """And imported, message by message the same."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(["one", ("assistant", "two"), "three"])
    export(database, tmp_path / "c.jsonl", ["c"])
    copy = new_url(tmp_path, "copy.db")
    import_(copy, tmp_path / "c.jsonl")
    query = "SELECT conversation_id, id, parent_id, position, role, content, created_at FROM messages ORDER BY position"
    assert sql(copy, query) == sql(database, query)
