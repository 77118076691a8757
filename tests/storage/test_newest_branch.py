"""The newest branch of a conversation is the one that was stored last, and all readers find the same."""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from recorder import ChatHistoryCallback
from recorder.callbacks import BaseCallbackHandler
from recorder.cli import queries
from recorder.cli.branches import newest_path
from recorder.messages import AIMessage, BaseMessage, HumanMessage
from recorder.replay import Replay
from recorder.storage import conversation_details
from recorder.storage.newest_branch import BranchEnd, end_of, in_order
from tests.oracle import begin, finish, record, say, sql

START = datetime(2026, 11, 21, tzinfo=UTC)


class Clock:
    """A fake for the wall clock, which a test can set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = START
        for module in ("recorder.recording.recorder", "recorder.core.clock"):
            monkeypatch.setattr(f"{module}.now", lambda: self.at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the times of recorded rows come from."""
    return Clock(monkeypatch)


class PromptCollector(BaseCallbackHandler):
    """A callback handler that collects the prompt of each run."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.prompts.append([message.text for message in messages[0]])


def newest(url: str) -> tuple[list[str], list[str]]:
    """Texts and runs of the newest branch of `c`, after asserting that all readers find the same."""
    collector = PromptCollector()
    with Replay(url) as replay:
        texts = [message.text for message in replay.messages("c")]
        runs = [run.id for run in replay.runs("c")]
        replay.into(collector, "c")
    found = queries.read(url, lambda store: conversation_details.conversation(store, "c"))
    drawn = newest_path(found["messages"])
    assert [row["content"] for row in drawn if row["message_id"]] == texts
    assert list(dict.fromkeys(row["run_id"] for row in drawn if row["run_id"])) == runs
    # A prompt is what was sent: the branch from its beginning, or a stretch of it.
    stretches = [texts[first:last] for last in range(len(texts) + 1) for first in range(last + 1)]
    assert all(prompt in stretches for prompt in collector.prompts)
    assert len(collector.prompts) == len(runs)
    return texts, runs


def alternating(*texts: str) -> list[BaseMessage]:
    """Messages of the user and of the model in turn."""
    return [(AIMessage if place % 2 else HumanMessage)(text) for place, text in enumerate(texts)]


# -- the clock of the machine ---------------------------------------------------------------------------------------


def test_both_turns_are_on_the_newest_branch_when_the_clock_was_set_back_between_them(
    database: str, clock: Clock
) -> None:
    """A replay plays them in the order in which they were stored."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        runs = [record(history, *alternating("q1"), reply="a1")]
        history.flush().wait(10)
        clock.at -= timedelta(hours=1)
        runs.append(record(history, *alternating("q1", "a1", "q2"), reply="a2"))
    assert newest(database) == (["q1", "a1", "q2", "a2"], [str(run) for run in runs])


@pytest.mark.parametrize(
    "edited", [alternating("q1", "a1", "q2"), alternating("q1", "a1", "Q2")], ids=["again", "edited"]
)
def test_an_older_branch_becomes_the_newest_when_a_message_is_stored_on_it(
    database: str, clock: Clock, edited: list[BaseMessage]
) -> None:
    """The run repeats a question or edits it, and its time is a day before the others."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        record(history, *alternating("q1"), reply="a1")
        record(history, *alternating("q1", "a1", "q2"), reply="a2")
        history.flush().wait(10)
        clock.at -= timedelta(days=1)
        record(history, *edited, reply="new")
    texts, _ = newest(database)
    assert texts == [*(message.text for message in edited), "new"]


def test_two_recorders_whose_clocks_differ_by_an_hour_share_one_branch(database: str, clock: Clock) -> None:
    """Each of them reads the conversation and continues it."""
    with (
        ChatHistoryCallback(database, conversation_id="c") as ahead,
        ChatHistoryCallback(database, conversation_id="c") as behind,
        Replay(database) as replay,
    ):
        for turn, history in enumerate((ahead, behind, ahead, behind)):
            clock.at = START + timedelta(hours=history is ahead)
            record(history, *replay.messages("c"), HumanMessage(f"q{turn}"), reply=f"a{turn}")
            history.flush().wait(10)
    texts, runs = newest(database)
    assert texts == [f"{letter}{turn}" for turn in range(4) for letter in "qa"]
    assert len(runs) == 4


def test_a_reply_that_is_stored_last_is_on_the_newest_branch(database: str, clock: Clock) -> None:
    """Its run began before the run of another process, whose clock is ahead."""
    with (
        ChatHistoryCallback(database, conversation_id="c") as slow,
        ChatHistoryCallback(database, conversation_id="c") as quick,
    ):
        run_id = begin(slow, *alternating("q1"))
        slow.flush().wait(10)
        clock.at += timedelta(hours=1)
        record(quick, *alternating("Q1"), reply="A1")
        quick.flush().wait(10)
        clock.at -= timedelta(hours=1)
        finish(slow, run_id, "a1")
    assert newest(database) == (["q1", "a1"], [str(run_id)])


def test_messages_of_one_moment_have_different_times(database: str, clock: Clock) -> None:
    """While the clock stands still, each message is a microsecond later than the one before."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for number in range(5):
            history.add_messages(f"added {number}")
            record(history, HumanMessage(f"q{number}"), reply=f"a{number}")
    times = [time for (time,) in sql(database, "SELECT created_at FROM messages ORDER BY created_at")]
    assert len(set(times)) == len(times) == 15
    assert newest(database)[0][-2:] == ["q4", "a4"]


# -- runs without a message -----------------------------------------------------------------------------------------


def record_failed(history: ChatHistoryCallback, *messages: BaseMessage) -> uuid.UUID:
    """Record a run that ends with an error and no reply."""
    run_id = begin(history, *messages)
    history.on_llm_error(ValueError("no"), run_id=run_id)
    history.flush().wait(10)
    return run_id


def test_a_failed_run_is_the_end_of_the_newest_branch_when_its_question_is_new(
    database: str, clock: Clock
) -> None:
    """Of several failed runs with this question the last one counts."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        first = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        clock.at -= timedelta(hours=1)
        for _ in range(2):
            clock.at += timedelta(seconds=1)
            last = record_failed(history, *alternating("q1", "a1", "q2"))
    assert newest(database) == (["q1", "a1", "q2"], [str(first), str(last)])


def test_a_failed_run_is_not_on_the_newest_branch_when_its_question_has_an_answer(
    database: str, clock: Clock
) -> None:
    """The failed run is a branch of its own, and the newest branch has the answer."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        answered = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        clock.at += timedelta(hours=1)
        record_failed(history, *alternating("q1"))
    assert newest(database) == (["q1", "a1"], [str(answered)])


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_streaming_run_is_on_the_newest_branch(database: str, clock: Clock, hours: int) -> None:
    """It repeats a question, and stays on the newest branch after its end, whatever the clock says."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        answered = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        clock.at += timedelta(hours=hours)
        again = begin(history, *alternating("q1"))
        say(history, again, ["b"])
        history.flush().wait(10)
        assert newest(database) == (["q1"], [str(again)])
        finish(history, again, "b1")
        history.flush().wait(10)
        assert newest(database) == (["q1", "b1"], [str(again)])
    assert str(answered) not in newest(database)[1]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_streaming_run_is_not_on_the_newest_branch_when_a_reply_was_stored_after_it_began(
    database: str, clock: Clock, hours: int
) -> None:
    """The run is a long one in the background."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        clock.at += timedelta(hours=hours)
        long = begin(history, HumanMessage("Write the title."))
        history.flush().wait(10)
        clock.at -= timedelta(hours=hours)
        answered = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        assert newest(database) == (["Write the title.", "q1", "a1"], [str(answered)])
        finish(history, long)


def test_a_conversation_without_messages_has_an_empty_branch(database: str) -> None:
    """A run without messages can still be replayed."""
    with ChatHistoryCallback(database, conversation_id="c") as history, Replay(database) as replay:
        assert replay.messages("c") == []
        run_id = uuid.uuid4()
        history.on_chat_model_start({}, [[]], run_id=run_id)
        say(history, run_id, "a")
        history.flush().wait(10)
        assert replay.messages("c") == []
        assert [run.id for run in replay.runs("c")] == [str(run_id)]
        finish(history, run_id)


# -- random steps ---------------------------------------------------------------------------------------------------


class Story:
    """Random turns, edits, second answers, failures and additions by two recorders, and the expected newest branch."""

    def __init__(self, chance: random.Random, recorders: Sequence[ChatHistoryCallback], clock: Clock) -> None:
        self.chance = chance
        self.recorders = recorders
        self.clock = clock
        #: The texts of the expected newest branch.
        self.texts: list[str] = []
        self.count = 0

    def step(self) -> None:
        """Do one random thing, at a random time of the clock."""
        self.clock.at = START + timedelta(seconds=self.chance.randrange(-10_000, 10_000))
        history = self.chance.choice(self.recorders)
        self.count += 1
        kind = self.chance.choice(["turn", "turn", "edit", "again", "failed", "add"])
        if kind == "add":
            history.add_messages(f"added {self.count}")
            self.texts = [*self.texts, f"added {self.count}"]
        elif kind == "failed":
            self.fail(history)
        else:
            self.answer(history, kind)
        history.flush().wait(10)

    def answer(self, history: ChatHistoryCallback, kind: str) -> None:
        """Record a run with a reply: at the end of the branch, or somewhere on it."""
        kept = self.texts if kind == "turn" else self.texts[: self.chance.randrange(len(self.texts) + 1)]
        prompt = kept if kind == "again" and kept else [*kept, f"q{self.count}"]
        if self.is_said_again(prompt) or (not kept and self.texts):
            self.texts = [*self.texts, *prompt, f"a{self.count}"]  # it follows the newest message
        else:
            self.texts = [*prompt, f"a{self.count}"]
        record(history, *map(as_stored, prompt), reply=f"a{self.count}")

    def fail(self, history: ChatHistoryCallback) -> None:
        """Record a run that fails: a new question stays, an old one does not change the branch."""
        place = self.chance.randrange(len(self.texts) + 1)
        old = self.chance.random() < 0.5 and place > 0
        prompt = self.texts[:place] if old else [*self.texts, f"q{self.count}"]
        record_failed(history, *map(as_stored, prompt))
        if not old:
            self.texts = prompt
        elif self.is_said_again(prompt):
            self.texts = [*self.texts, *prompt]

    def is_said_again(self, prompt: list[str]) -> bool:
        """Whether the first message alone is sent although more than an answer to it follows."""
        only_answered = len(self.texts) == 2 and isinstance(as_stored(self.texts[1]), AIMessage)
        return len(prompt) == 1 and len(self.texts) > 1 and not only_answered


def as_stored(text: str) -> BaseMessage:
    """The message with this text: `a3` is a reply, and all else is a user's message."""
    return AIMessage(text) if re.fullmatch(r"a\d+", text) else HumanMessage(text)


def test_all_readers_find_the_branch_that_was_stored_last_after_random_steps(
    database: str, clock: Clock
) -> None:
    """The branch is compared after each of twenty steps."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with (
        ChatHistoryCallback(database, conversation_id="c") as one,
        ChatHistoryCallback(database, conversation_id="c") as other,
        Replay(database) as replay,
    ):
        story = Story(random.Random(seed), (one, other), clock)
        for _ in range(20):
            story.step()
            assert [message.text for message in replay.messages("c")] == story.texts
    if sql(database, "SELECT count(*) FROM runs")[0][0]:
        assert newest(database)[0] == story.texts


# -- what is queried ------------------------------------------------------------------------------------------------


def statements(url: str, turns: int) -> Iterator[int]:
    """How many queries `into` and `messages` send for a conversation of so many turns."""
    with ChatHistoryCallback(url, conversation_id=f"{turns} turns") as history:
        texts: list[str] = []
        for turn in range(turns):
            texts.append(f"q{turn}")
            record(history, *alternating(*texts), reply=f"a{turn}")
            texts.append(f"a{turn}")
    seen: list[str] = []

    def note(*given: Any) -> None:
        seen.append(given[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with Replay(url) as replay:
            collector = PromptCollector()
            replay.into(collector, f"{turns} turns")
            assert [len(prompt) for prompt in collector.prompts] == list(range(1, 2 * turns, 2))
            yield len([query for query in seen if "WITH RECURSIVE" in query])
            seen.clear()
            assert len(replay.messages(f"{turns} turns")) == 2 * turns
            yield len(seen)
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_the_number_of_queries_does_not_grow_with_the_conversation(database: str) -> None:
    """`into` reads its path twice: once for the ids of its runs, once for the messages of their requests."""
    assert list(statements(database, 3)) == list(statements(database, 30))
    paths, messages = statements(database, 5)
    assert paths == 2
    assert messages < 10


def test_a_path_ends_when_the_parents_of_a_message_form_a_circle(database: str) -> None:
    """Only a damaged or foreign database has such rows."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        record(history, *alternating("q1"), reply="a1")
    ids = dict(sql(database, "SELECT content, id FROM messages"))
    change = "UPDATE messages SET parent_id = ? WHERE content = ?"
    if database.startswith("sqlite"):
        import sqlite3

        with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
            connection.execute(change, (ids["a1"], "q1"))
        connection.close()
    else:
        sql(database, change.replace("parent_id = ?", "parent_id = CAST(? AS uuid)"), ids["a1"], "q1")
    with Replay(database) as replay:
        assert [message.text for message in replay.messages("c")] == ["q1", "a1"]


def test_in_order_returns_the_path_from_the_first_message_to_the_end() -> None:
    """The rows come in any order, and rows that are not on the path are left out."""
    rows = [
        SimpleNamespace(id=id, parent_id=parent)
        for id, parent in [("c", "b"), ("x", "a"), ("a", None), ("b", "a")]
    ]
    assert [row.id for row in in_order(rows, "c")] == ["a", "b", "c"]
    assert in_order(rows, "gone") == []


def test_a_run_of_an_older_version_is_ordered_by_its_start() -> None:
    """Older versions did not store which message was the newest when a run began."""
    message = SimpleNamespace(id="m", created_at=START, position=3)

    def run(seconds: int) -> Any:
        at = START + timedelta(seconds=seconds)
        return SimpleNamespace(
            id="r", prompt_message_id="p", status="streaming", started_at=at, said_at=None, by_id=None
        )

    assert end_of(message, [run(1)], START) == BranchEnd("p", "r")
    assert end_of(message, [run(-1)], START) == BranchEnd("m", None)
    assert end_of(None, [run(1)], START) == BranchEnd("p", "r")
    assert end_of(None, [], START) is None


def test_all_readers_find_the_same_branch_when_two_recorders_store_at_once(database: str) -> None:
    """Both recorders took the same message for the newest one."""
    with (
        ChatHistoryCallback(database, conversation_id="c", flush_interval=0) as one,
        ChatHistoryCallback(database, conversation_id="c", flush_interval=0) as other,
    ):
        record(one, *alternating("q"), reply="a")
        one.flush().wait(10)

        async def story() -> None:
            for number in range(10):
                for name, history in (("x", one), ("y", other)):
                    record(
                        history, *alternating("q", "a", f"{name}{number}"), reply=f"{name.upper()}{number}"
                    )
                await asyncio.gather(one.flush(), other.flush())

        asyncio.run(story())
    first = newest(database)
    assert first[0][:2] == ["q", "a"]
    assert len(first[0]) == 4
    assert newest(database) == first
