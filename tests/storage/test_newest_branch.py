"""The newest branch of a conversation: by the order in which things were stored, and the same for all who read it."""

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
from recorder.storage.newest_branch import BranchEnd, end_of, in_order
from tests.oracle import begin, finish, record, say, sql

START = datetime(2026, 11, 21, tzinfo=UTC)


class Clock:
    """The wall clock of the machine, which somebody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = START
        for module in ("recorder.recording.recorder", "recorder.chat_history_callback"):
            monkeypatch.setattr(f"{module}.now", lambda: self.at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What is recorded is dated by it."""
    return Clock(monkeypatch)


class Questions(BaseCallbackHandler):
    """The prompt of each run, as handlers hear it."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.prompts.append([message.text for message in messages[0]])


def newest(url: str) -> tuple[list[str], list[str]]:
    """Texts and runs of the newest branch of `c`, on which all who read it agree."""
    questions = Questions()
    with Replay(url) as replay:
        texts = [message.text for message in replay.messages("c")]
        runs = [run.id for run in replay.runs("c")]
        replay.into(questions, "c")
    found = queries.read(url, lambda store: queries.conversation(store, "c"))
    drawn = newest_path(found["messages"])
    assert [row["content"] for row in drawn if row["message_id"]] == texts
    assert list(dict.fromkeys(row["run_id"] for row in drawn if row["run_id"])) == runs
    assert all(prompt == texts[: len(prompt)] for prompt in questions.prompts)
    assert len(questions.prompts) == len(runs)
    return texts, runs


def alternating(*texts: str) -> list[BaseMessage]:
    """Question, answer, question, ..."""
    return [(AIMessage if place % 2 else HumanMessage)(text) for place, text in enumerate(texts)]


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_between_two_turns(database: str, clock: Clock) -> None:
    """Both are on it, and played one after the other."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        runs = [record(history, *alternating("q1"), reply="a1")]
        history.flush().wait(10)
        clock.at -= timedelta(hours=1)
        runs.append(record(history, *alternating("q1", "a1", "q2"), reply="a2"))
    assert newest(database) == (["q1", "a1", "q2", "a2"], [str(run) for run in runs])


@pytest.mark.parametrize(
    "edited", [alternating("q1"), alternating("q1", "a1", "Q2")], ids=["again", "edited"]
)
def test_an_older_branch_that_goes_on_with_a_clock_behind_is_the_newest(
    database: str, clock: Clock, edited: list[BaseMessage]
) -> None:
    """The same question again, and another one in its place: what is stored last is read last."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        record(history, *alternating("q1"), reply="a1")
        record(history, *alternating("q1", "a1", "q2"), reply="a2")
        history.flush().wait(10)
        clock.at -= timedelta(days=1)
        record(history, *edited, reply="new")
    texts, _ = newest(database)
    assert texts == [*(message.text for message in edited), "new"]


def test_two_recorders_with_clocks_an_hour_apart(database: str, clock: Clock) -> None:
    """Whoever stores last; each reads and goes on where the other ended."""
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
    assert texts == [f"{who}{turn}" for turn in range(4) for who in "qa"]
    assert len(runs) == 4


def test_a_reply_that_is_stored_after_anothers_branch_is_the_newest(database: str, clock: Clock) -> None:
    """Its run began before the other one, in another process, whose clock is ahead."""
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


def test_messages_of_one_moment_are_told_apart(database: str, clock: Clock) -> None:
    """A clock that stands still dates each of them a microsecond later; and no two of a conversation are the same."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for number in range(5):
            history.add_messages(f"added {number}")
            record(history, HumanMessage(f"q{number}"), reply=f"a{number}")
    times = [time for (time,) in sql(database, "SELECT created_at FROM messages ORDER BY created_at")]
    assert len(set(times)) == len(times) == 15
    assert newest(database)[0][-2:] == ["q4", "a4"]


# -- runs without a message -----------------------------------------------------------------------------------------


def failed(history: ChatHistoryCallback, *messages: BaseMessage) -> uuid.UUID:
    """A run that nobody answered."""
    run_id = begin(history, *messages)
    history.on_llm_error(ValueError("no"), run_id=run_id)
    history.flush().wait(10)
    return run_id


def test_a_question_that_failed_is_the_end_of_its_branch(database: str, clock: Clock) -> None:
    """The last attempt of several, as long as nothing else is stored."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        first = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        clock.at -= timedelta(hours=1)
        for _ in range(2):
            clock.at += timedelta(seconds=1)
            last = failed(history, *alternating("q1", "a1", "q2"))
    assert newest(database) == (["q1", "a1", "q2"], [str(first), str(last)])


def test_a_question_that_is_asked_again_in_vain_keeps_its_answer(database: str, clock: Clock) -> None:
    """The failed run is another branch; what is sent on with the next question has the answer."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        answered = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        clock.at += timedelta(hours=1)
        failed(history, *alternating("q1"))
    assert newest(database) == (["q1", "a1"], [str(answered)])


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_run_that_streams_is_the_newest(database: str, clock: Clock, hours: int) -> None:
    """An answer that is asked for again, while it comes and when it has come; whatever the clock says."""
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
def test_a_run_that_streams_beside_newer_messages_is_not(database: str, clock: Clock, hours: int) -> None:
    """A long one in the background, which began before the last answer was stored."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        clock.at += timedelta(hours=hours)
        long = begin(history, HumanMessage("Write the title."))
        history.flush().wait(10)
        clock.at -= timedelta(hours=hours)
        answered = record(history, *alternating("q1"), reply="a1")
        history.flush().wait(10)
        assert newest(database) == (["Write the title.", "q1", "a1"], [str(answered)])
        finish(history, long)


def test_nothing_is_there(database: str) -> None:
    """No messages; a run without a prompt is played."""
    with ChatHistoryCallback(database, conversation_id="c") as history, Replay(database) as replay:
        assert replay.messages("c") == []
        run_id = uuid.uuid4()
        history.on_chat_model_start({}, [[]], run_id=run_id)
        say(history, run_id, "a")
        history.flush().wait(10)
        assert replay.messages("c") == []
        assert [run.id for run in replay.runs("c")] == [str(run_id)]
        finish(history, run_id)


# -- everything at once ---------------------------------------------------------------------------------------------


class Story:
    """Turns, edits, second answers, failures and additions by two recorders, and what is the newest branch then."""

    def __init__(self, chance: random.Random, recorders: Sequence[ChatHistoryCallback], clock: Clock) -> None:
        self.chance = chance
        self.recorders = recorders
        self.clock = clock
        #: The texts of the branch that something was stored in last.
        self.texts: list[str] = []
        self.count = 0

    def step(self) -> None:
        """One more thing happens, by a clock that anybody may have set."""
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
        """A run with a reply: on with the branch, or from somewhere on it."""
        kept = self.texts if kind == "turn" else self.texts[: self.chance.randrange(len(self.texts) + 1)]
        prompt = kept if kind == "again" and kept else [*kept, f"q{self.count}"]
        if not kept and self.texts:
            prompt = [f"q{self.count}"]  # nothing of it is known, so it goes on below the newest message
            self.texts = [*self.texts, *prompt, f"a{self.count}"]
        else:
            self.texts = [*prompt, f"a{self.count}"]
        record(history, *map(as_stored, prompt), reply=f"a{self.count}")

    def fail(self, history: ChatHistoryCallback) -> None:
        """A run without one: a new question stays, an old one moves nothing."""
        place = self.chance.randrange(len(self.texts) + 1)
        old = self.chance.random() < 0.5 and place > 0
        prompt = self.texts[:place] if old else [*self.texts, f"q{self.count}"]
        failed(history, *map(as_stored, prompt))
        if not old:
            self.texts = prompt


def as_stored(text: str) -> BaseMessage:
    """The message of a story's text: `a3` is a reply, all else was said by the user."""
    return AIMessage(text) if re.fullmatch(r"a\d+", text) else HumanMessage(text)


def test_whatever_happens_all_who_read_agree(database: str, clock: Clock) -> None:
    """Twenty steps, and after each the branch that was stored in last."""
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


# -- what is read ---------------------------------------------------------------------------------------------------


def statements(url: str, turns: int) -> Iterator[int]:
    """How many questions reach the database for a conversation of so many turns: into handlers, and its messages."""
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
            questions = Questions()
            replay.into(questions, f"{turns} turns")
            assert [len(prompt) for prompt in questions.prompts] == list(range(1, 2 * turns, 2))
            yield len([query for query in seen if "WITH RECURSIVE" in query])
            seen.clear()
            assert len(replay.messages(f"{turns} turns")) == 2 * turns
            yield len(seen)
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_conversation_is_read_once_for_all_its_runs(database: str) -> None:
    """Its path twice: the ids for what is played, the messages for what each run was asked."""
    assert list(statements(database, 3)) == list(statements(database, 30))
    paths, messages = statements(database, 5)
    assert paths == 2
    assert messages < 10


def test_a_path_ends_where_a_stranger_s_database_goes_round(database: str) -> None:
    """A message among its own parents, and one whose parent is not there."""
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


def test_rows_are_put_in_order_whatever_their_order() -> None:
    """From the end up; what does not lead there is left out."""
    rows = [
        SimpleNamespace(id=id, parent_id=parent)
        for id, parent in [("c", "b"), ("x", "a"), ("a", None), ("b", "a")]
    ]
    assert [row.id for row in in_order(rows, "c")] == ["a", "b", "c"]
    assert in_order(rows, "gone") == []


def test_a_run_of_an_older_version_stands_at_its_start() -> None:
    """It does not say which message was the newest when it began."""
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


def test_two_processes_that_store_at_the_same_moment_have_one_order(database: str) -> None:
    """Both took the same message for the newest one; whichever is the newest is so for everybody, and stays so."""
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
