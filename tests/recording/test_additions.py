"""`history.add_messages` stores messages without a run, as a chat memory needs."""

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
from recorder.storage.batch import Batch
from recorder.storage.store import SqlStore
from recorder.testing import LoopbackProvider, MemoryStore
from tests import postgres
from tests.oracle import FaultyStore, away, begin, finish, new_url, record, run_python, sql, start_python


def only_branch(url: str, conversation_id: str = "c") -> list[tuple[str, str]]:
    """Role and content of each message of a conversation that has one branch and no missing position."""
    rows = sql(
        url,
        "SELECT role, content, position, branch FROM transcripts WHERE conversation_id = ? "
        "AND message_id IS NOT NULL ORDER BY position",
        conversation_id,
    )  # fmt: skip
    assert [(position, branch) for *_, position, branch in rows] == [(place, 1) for place in range(len(rows))]
    return [(role, content) for role, content, *_ in rows]


# -- their place in the conversation -------------------------------------------------------------------------


def test_added_messages_follow_those_that_were_stored_before(database: str) -> None:
    """The messages may come in one call or several, in one transaction or several, and from a later recorder."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages([SystemMessage("Be kind."), HumanMessage("Is my order there?")])
        history.add_messages([AIMessage("It left on Monday.")])
        history.flush().wait(10)
        history.add_messages("And today?")
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(("assistant", "Tomorrow."))
    assert only_branch(database) == [
        ("system", "Be kind."),
        ("user", "Is my order there?"),
        ("assistant", "It left on Monday."),
        ("user", "And today?"),
        ("assistant", "Tomorrow."),
    ]
    rows = sql(database, "SELECT status, model, run_id FROM transcripts")
    assert set(rows) == {("complete", None, None)}
    assert sql(database, "SELECT count(*) FROM runs") == [(0,)]


def test_an_equal_message_is_stored_again_each_time_it_is_added(database: str) -> None:
    """`add_messages` does not look for an equal message that is stored already."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for _ in range(3):
            history.add_messages("Are you there?")
            history.flush().wait(10)
        history.add_messages(["Are you there?"] * 2)
    assert only_branch(database) == [("user", "Are you there?")] * 5


def test_a_run_continues_after_the_added_messages(database: str) -> None:
    """A run whose request repeats the added messages stores only what is new; later messages follow its reply."""
    earlier = [HumanMessage("Is my order there?"), AIMessage("It left on Monday.")]
    with ChatHistoryCallback(database, conversation_id="c") as history, LoopbackProvider() as provider:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
        history.add_messages(earlier)
        song = chat.invoke([*earlier, HumanMessage("Sing.")]).text
        history.add_messages([AIMessage("Anything else?")])
    assert only_branch(database) == [
        ("user", "Is my order there?"),
        ("assistant", "It left on Monday."),
        ("user", "Sing."),
        ("assistant", song),
        ("assistant", "Anything else?"),
    ]


def test_one_commit_stores_runs_and_added_messages_in_the_order_of_the_calls(database: str) -> None:
    """Messages are added before and after a run that begins and ends between two commits."""
    with ChatHistoryCallback(database, conversation_id="c", flush_interval=3600) as history:
        history.add_messages("first", conversation_id="other")  # later commits wait for `flush_interval`
        history.flush().wait(10)
        commits = history.stats().commits
        history.add_messages("one")
        run_id = begin(history, HumanMessage("one"), HumanMessage("two"))
        finish(history, run_id, "three")
        history.add_messages("four")
        history.flush().wait(10)
        assert history.stats().commits == commits + 1
    assert [content for _, content in only_branch(database)] == ["one", "two", "three", "four"]
    # Also where the query has no ORDER BY.
    found = sql(database, "SELECT content FROM messages")
    assert found == [("first",), ("one",), ("two",), ("three",), ("four",)]


def test_a_process_whose_clock_is_behind_continues_the_newest_branch(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run and the messages that it adds are the end of the conversation, though their times are earlier."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(["one", ("assistant", "two")])
    for module in ("recorder.core.clock", "recorder.recording.recorder"):
        monkeypatch.setattr(f"{module}.now", lambda: now() - timedelta(minutes=1))
    with ChatHistoryCallback(database, conversation_id="c") as history, Replay(database) as replay:
        sent = [HumanMessage("one"), AIMessage("two"), HumanMessage("three")]
        finish(history, begin(history, *sent), "four")
        history.flush().wait(10)
        assert replay.messages("c") == [*sent, AIMessage("four")]
        history.add_messages("three")  # a message above has the same text
    assert [content for _, content in only_branch(database)] == ["one", "two", "three", "four", "three"]
    assert sql(database, "SELECT position FROM messages ORDER BY created_at DESC LIMIT 1") == [(4,)]


def test_a_repeated_question_does_not_change_where_messages_are_added(database: str) -> None:
    """A run that repeats an old question is open, and an added message still follows the last message."""
    with ChatHistoryCallback(database, conversation_id="c", flush_interval=3600) as history:
        history.add_messages(["one", ("assistant", "two")])
        history.flush().wait(10)
        again = begin(history, HumanMessage("one"))
        history.add_messages(("assistant", "two"))
        finish(history, again)
    assert [content for _, content in only_branch(database)] == ["one", "two", "two"]


@pytest.mark.parametrize("all_messages", [False, True], ids=["only what is new", "the whole history"])
def test_messages_keep_their_order_when_the_clock_is_set_back(
    database: str, all_messages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has an earlier time than the message that was added before it, and is still read after that message."""
    times = [datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in (11, 10)]
    with ChatHistoryCallback(database, conversation_id="c") as history, Replay(database) as replay:
        monkeypatch.setattr("recorder.recording.recorder.now", lambda: times[0])
        monkeypatch.setattr("recorder.core.clock.now", lambda: times[1])
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
    assert found == expected == [content for _, content in only_branch(database)]


def test_the_conversation_named_closest_to_the_call_gets_the_message(database: str) -> None:
    """The call's argument comes before the block, and the block before the callback's argument, as with runs."""
    with ChatHistoryCallback(database, conversation_id="a") as history:
        with history.conversation("b"):
            history.add_messages("to b")
            history.add_messages("to c", conversation_id="c")
        history.add_messages("to a")
    assert [only_branch(database, name) for name in "abc"] == [[("user", f"to {name}")] for name in "abc"]


def test_one_commit_stores_messages_of_hundreds_of_conversations(database: str) -> None:
    """Each conversation has all of its messages in order."""
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
        assert only_branch(database, f"c{number}") == [("user", f"{number}:{place}") for place in range(5)]


# -- their form ----------------------------------------------------------------------------------------------


def test_every_form_of_message_that_a_model_takes_is_stored(database: str) -> None:
    """LangChain's messages, dicts, tool calls and content blocks are read back equal."""
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


def test_a_conversation_has_the_time_of_its_first_message(database: str) -> None:
    """This holds whether a run or an added message opens the conversation, also where one commit stores both."""
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
def test_conversation_ids_and_roles_may_have_any_characters(database: str, odd: str) -> None:
    """NUL, half of a surrogate pair and the escape character are stored and read back equal."""
    with ChatHistoryCallback(database, conversation_id=odd) as history:
        history.add_messages([(odd, "one"), "two"])
    with Replay(database) as replay:
        assert replay.messages(odd) == [ChatMessage("one", role=odd), HumanMessage("two")]


def test_an_empty_list_opens_no_conversation(database: str) -> None:
    """`add_messages([])` stores nothing."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages([])
    assert sql(database, "SELECT count(*) FROM conversations") == [(0,)]


@pytest.mark.parametrize(
    ("messages", "conversation_id", "words"),
    [
        ("Hello!", None, "Without a run a conversation is needed; pass conversation_id='...'"),
        ("Hello!", "", "conversation_id is empty"),
        ("Hello!", "x" * 256, "has 256 characters and the limit is 255"),
        (["Hello!", 7], "c", "7"),
    ],
)
def test_add_messages_stores_nothing_when_its_input_is_wrong(
    messages: Any, conversation_id: str | None, words: str
) -> None:
    """The ConfigError says what is wrong, and none of the messages of the call is stored."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history, pytest.raises(ConfigError) as refused:
        history.add_messages(messages, conversation_id=conversation_id)
    assert words in str(refused.value)
    assert (store.messages, history.stats().messages_added) == ({}, 0)


@pytest.mark.parametrize("messages", ["too late", []])
def test_add_messages_raises_closed_after_close(messages: Any) -> None:
    """It raises also for an empty list."""
    history = ChatHistoryCallback(store=MemoryStore(), conversation_id="c")
    history.close().wait(10)
    with pytest.raises(Closed):
        history.add_messages(messages)


# -- the queue and the database ------------------------------------------------------------------------------


class Gated(FaultyStore):
    """A store whose appends wait until `gate` is set."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.gate: Wait[None] = Wait()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            await self.gate
        await super().append(batch)


def add_for_ever(history: ChatHistoryCallback) -> None:
    """Add messages until `add_messages` raises."""
    while True:
        history.add_messages("x" * 1_000)


def fill(history: ChatHistoryCallback) -> int:
    """Add messages until the queue is full, and return how many were accepted."""
    with pytest.raises(
        StoreError, match=r"The queue is full \(.* bytes\) and 1 messages or annotations were not accepted"
    ):
        add_for_ever(history)
    return history.stats().messages_added


async def _on_a_loop(history: ChatHistoryCallback) -> int:
    return fill(history)


@pytest.mark.parametrize("way", [fill, lambda history: asyncio.run(_on_a_loop(history))], ids=["off", "on"])
def test_add_messages_raises_when_the_queue_is_full(way: Callable[[ChatHistoryCallback], int]) -> None:
    """While the database stalls, the queue accepts messages up to its limit; after that, each call raises."""
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
    ids=["tool calls", "invalid tool calls", "additional kwargs"],
)
def test_tool_calls_count_in_the_bytes_of_the_queue(message: AIMessage) -> None:
    """They count in an added message, in a request and in a reply, also where the message has no text."""
    store = Gated()
    with ChatHistoryCallback(store=store, conversation_id="c") as history:
        history.add_messages(message)
        run_id = begin(history, message)
        history.on_llm_end(LLMResult(generations=[[ChatGeneration(message)]]), run_id=run_id)
        held = history.stats().queued_bytes
        store.gate.set(None)
    assert held >= 3 * len(_LONG)
    assert history.stats().queued_bytes == 0


def test_add_messages_waits_for_room_outside_of_an_event_loop() -> None:
    """While the database stores, more messages than the queue can hold are accepted."""
    with ChatHistoryCallback(
        store=MemoryStore(), conversation_id="c", max_queue_bytes=20_000, block_timeout=3600
    ) as history:
        for number in range(500):
            history.add_messages(f"{number} " + "x" * 500)
    assert history.stats().messages_stored == 500


def test_add_messages_raises_closed_when_the_history_closes_while_it_waits_for_room() -> None:
    """The last batch is given up, which makes room in the queue, but the writer has ended."""
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
def test_each_message_is_stored_once_when_commits_fail(
    database: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit fails before it stored anything, or after it stored the batch and the answer was lost."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    faults: Any = {when: [away, away]}
    store = FaultyStore(SqlStore(database), **faults)
    with ChatHistoryCallback(database, store=store, conversation_id="c") as history:
        for number in range(20):
            history.add_messages(f"{number % 2}")
    assert len(store.tried) >= 3
    assert only_branch(database) == [("user", f"{number % 2}") for number in range(20)]


def test_messages_that_cannot_be_stored_are_left_out_of_their_batch(caplog: pytest.LogCaptureFixture) -> None:
    """The messages of other conversations are stored, and the log names the conversation but not the text."""

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
        "2 messages or annotations added to conversation 'bad' cannot be stored: these bytes can not be stored"
        in caplog.text
    )
    assert "secret" not in caplog.text


def test_a_flush_raises_how_many_messages_were_lost_when_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`close` gives up after its timeout and counts the messages as not stored."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    history = ChatHistoryCallback(
        store=FaultyStore(MemoryStore(), before=[away] * 10**6), conversation_id="c"
    )
    history.add_messages(["one", "two"])
    flush = history.flush()
    stats = history.close(timeout=0.1).wait(10)
    assert (stats.messages_added, stats.messages_stored, stats.queued_bytes) == (2, 0, 0)
    with pytest.raises(StoreError, match="0 tokens and 2 added messages or annotations were not stored"):
        flush.wait(10)


def test_queued_messages_are_lost_when_the_database_never_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flush raises how many they are, and the queue is empty after `close`."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)

    class Absent(MemoryStore):
        async def open(self) -> None:
            raise ConnectionError("nobody there")

    history = ChatHistoryCallback(store=Absent(), conversation_id="c")
    history.add_messages(["one", "two"])
    flush = history.flush()
    stats = history.close(timeout=0.1).wait(10)
    assert (stats.messages_stored, stats.queued_bytes) == (0, 0)
    with pytest.raises(StoreError, match="0 tokens and 2 added messages or annotations were not stored"):
        flush.wait(10)


def test_the_exit_of_the_process_stores_queued_messages(tmp_path: Path) -> None:
    """`close` is not called. Where the database is locked, stderr says how many messages were not stored."""
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
    assert stderr.startswith("recorder: 0 tokens and 2 added messages or annotations were not stored")
    assert only_branch(url) == [("user", "one"), ("user", "two")]


def test_a_forked_child_stores_its_messages_with_a_writer_of_its_own(database: str) -> None:
    """The parent stores the messages that were in its queue at the fork."""
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
    assert only_branch(database) == [("user", "parent"), ("user", "child"), ("user", "later")]


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
    """Start a process that adds numbered messages, kill it, and return the numbers that its last flush confirmed."""
    victim = start_python(ENDLESS, url, seed, *numbers)
    assert victim.stdout is not None
    lines = [victim.stdout.readline() for _ in range(random.Random(seed).randint(1, 40))]
    victim.kill()
    out, errors = victim.communicate(timeout=10)
    assert errors == ""
    complete = [text for text in [*lines, *out.splitlines(keepends=True)] if text.endswith("\n")]
    return [int(number) for number in complete[-1].split()]


def test_flushed_messages_are_stored_when_the_process_is_killed(database: str) -> None:
    """The stored messages have no missing number, and the next process continues after them."""
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


def test_two_recorders_that_add_at_once_make_one_branch(database: str) -> None:
    """Each message follows the last one that is stored, whichever recorder stored it, on any isolation level."""
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
    found = [content for _, content in only_branch(database)]
    assert found.count("both") == 200
    for name in ("one", "other"):
        assert [text for text in found if text.startswith(name)] == [
            f"{name} {number}" for number in range(100)
        ]
    with Replay(database) as replay:
        assert [message.text for message in replay.messages("c")] == found


def test_another_recorder_adds_messages_when_a_stopped_process_holds_the_lock(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for `LOCK_WAIT` seconds, logs a warning, and stores its messages without the lock."""
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
    assert only_branch(postgres_url) == [("user", "one")]
    assert "Another process has held the lock of the same conversations for 0.05 s" in caplog.text


# -- reading -------------------------------------------------------------------------------------------------


def test_replay_reads_the_messages_of_the_newest_branch(database: str) -> None:
    """`messages` and, on an event loop, `amessages` return the same."""
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


def test_an_unknown_conversation_has_no_messages(database: str) -> None:
    """An id that is only the beginning of a stored id is unknown, too."""
    with ChatHistoryCallback(database) as history:
        history.add_messages("mine", conversation_id="user-12")
    with Replay(database) as replay:
        assert replay.messages("user-1") == []
        assert replay.messages("nobody") == []
        assert replay.messages("user-12") == [HumanMessage("mine")]


@pytest.mark.parametrize(
    ("id", "words"), [(7, "must be a str, not int"), (uuid.uuid4(), "not UUID"), ("", "is empty")]
)
def test_replay_raises_when_the_conversation_id_is_not_a_text(database: str, id: Any, words: str) -> None:
    """An empty list would read as a conversation that has not begun."""
    with Replay(database) as replay, pytest.raises(ConfigError, match=words):
        replay.messages(id)


def test_an_open_replay_reads_messages_that_were_added_later(database: str) -> None:
    """In each turn a chat memory reads all messages and adds two."""
    with Replay(database) as replay, ChatHistoryCallback(database) as history:
        for turn in range(3):
            messages = replay.messages("c")
            assert len(messages) == 2 * turn
            history.add_messages([f"question {turn}", ("assistant", f"answer {turn}")], conversation_id="c")
            history.flush().wait(10)
    assert [content for _, content in only_branch(database)][-2:] == ["question 2", "answer 2"]


def test_a_watcher_wakes_up_when_messages_are_added(database: str) -> None:
    """This holds on both databases, and needs no run."""

    async def story() -> bool:
        store = SqlStore(database, read_only=True)
        watch = await store.watch()
        async with ChatHistoryCallback(database, conversation_id="c") as history:
            await history.flush()
            while await watch.wait_for_commit(0.2):  # drop earlier commits
                pass
            history.add_messages("one")
            await history.flush()
            committed = await watch.wait_for_commit(5)
        await watch.close()
        await store.close()
        return committed

    assert asyncio.run(story())


def test_a_conversation_without_runs_is_exported(database: str, tmp_path: Path) -> None:
    """The import stores messages that are equal to the exported ones."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        history.add_messages(["one", ("assistant", "two"), "three"])
    export(database, tmp_path / "c.jsonl", ["c"])
    copy = new_url(tmp_path, "copy.db")
    import_(copy, tmp_path / "c.jsonl")
    query = "SELECT conversation_id, id, parent_id, position, role, content, created_at FROM messages ORDER BY position"
    assert sql(copy, query) == sql(database, query)
