"""The tree of messages: each message is stored once, and edits and regenerations are branches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recorder.core.escaping import unescape_json
from recorder.core.trampoline import Trampoline
from recorder.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    from_any,
    from_dict,
)
from recorder.storage.batch import Added, AddedMessages, Addition, Part, RunRows, RunSeal
from recorder.storage.message_lookups import Known, look_up
from recorder.storage.message_tree import settle, thread
from recorder.storage.rows import ContextMessageRow, MessageRow
from recorder.testing.memory_store import found_in
from tests.oracle import run_end, run_start

START = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass
class Table:
    """The messages of conversation "c" as a database would hold them after each batch."""

    rows: dict[str, MessageRow] = field(default_factory=dict)
    runs: list[RunRows] = field(default_factory=list)
    context: dict[str, ContextMessageRow] = field(default_factory=dict)

    def run(self, messages: Sequence[Any], *replies: Any, **fields: Any) -> RunRows:
        """A run with these messages and replies, two seconds after the last one, not threaded yet."""
        number = len(self.runs)
        at = START + timedelta(seconds=2 * number)
        fields = {"fresh": False, "started_at": at, "order": 2_000 * number, **fields}
        start = run_start(number, messages=[from_any(message) for message in messages], **fields)
        end = run_end(replies=[from_any(reply) for reply in replies])
        end.ended_at, end.order = at + timedelta(seconds=1), 2_000 * number + 1_000
        self.runs.append(RunRows(start, opens=True, seal=RunSeal(end, 0, "", None)))
        return self.runs[-1]

    def store(self, *batch: Part) -> None:
        """Thread a batch with what is known, as the store does, and add its rows."""
        steps = Trampoline(look_up(batch))
        lookup = steps.step()
        while lookup is not None:
            rows = {("c", row.id): row for row in self.rows.values()}
            lookup = steps.step(found_in(rows, lookup))
        settle(batch, thread(batch, steps.result))
        for part in batch:
            for row in part.messages:
                self.rows.setdefault(row.id, row)
            if isinstance(part, RunRows):
                self.context |= {row.id: row for row in part.context}

    def add(self, *texts: str, at: float) -> Addition:
        """An addition so many seconds after the start, not threaded yet."""
        moment, order = START + timedelta(seconds=at), int(1_000 * at) + 1
        added = AddedMessages.made_of(Added(order, moment, user(text)) for text in texts)
        return Addition("c", None, moment, added)

    @property
    def newest(self) -> MessageRow | None:
        """The newest message."""
        return max(self.rows.values(), key=lambda row: (row.created_at, row.position), default=None)

    def say(self, messages: Sequence[Any], *replies: Any, **fields: Any) -> RunRows:
        """A run that is stored in a batch of its own."""
        rows = self.run(messages, *replies, **fields)
        self.store(rows)
        return rows

    def path(self, row_id: str | None) -> list[str]:
        """The contents from the root to a message."""
        contents: list[str] = []
        while row_id is not None:
            row = self.rows[row_id]
            contents.append(row.content)
            row_id = row.parent_id
        return contents[::-1]

    def contents(self) -> list[str]:
        """All contents in the order in which they were stored."""
        return [row.content for row in self.rows.values()]


def user(text: str) -> BaseMessage:
    return HumanMessage(text)


def bot(text: str) -> BaseMessage:
    return AIMessage(text)


def test_messages_that_are_sent_again_each_turn_are_stored_once() -> None:
    """Three turns make six messages of one branch, and each reply has the id of its run."""
    table, history = Table(), []
    for turn in range(3):
        history += [user(f"question {turn}")]
        rows = table.say(history, bot(f"answer {turn}"))
        assert table.path(rows.start.placement.prompt_message_id) == [message.text for message in history]
        history += [bot(f"answer {turn}")]
        assert rows.seal is not None
        assert table.path(rows.seal.response_message_id) == [message.text for message in history]
    assert [row.position for row in table.rows.values()] == list(range(6))
    assert [row.run_id for row in table.rows.values() if row.role == "assistant"] == [
        rows.start.run_id for rows in table.runs
    ]
    assert {row.run_id for row in table.rows.values() if row.role == "user"} == {None}


def test_a_request_with_only_new_messages_follows_the_newest_message() -> None:
    """The application does not send earlier messages again."""
    table = Table()
    table.say([user("one")], bot("1"))
    table.say([user("two")], bot("2"))
    rows = table.say([user("three")])
    assert table.path(rows.start.placement.prompt_message_id) == ["one", "1", "two", "2", "three"]
    assert rows.start.placement.position == 4


def test_an_edit_is_a_branch() -> None:
    """The messages before the edit are shared."""
    table = Table()
    table.say([user("a"), bot("b"), user("c")], bot("d"))
    edited = table.say([user("a"), bot("b"), user("C!")], bot("d"))
    assert table.path(edited.start.placement.prompt_message_id) == ["a", "b", "C!"]
    assert len(table.rows) == 6
    assert len({row.parent_id for row in table.rows.values() if row.content in ("c", "C!")}) == 1


def test_a_request_with_an_unknown_first_message_follows_the_newest_message() -> None:
    """None of its messages is stored, so it is no branch."""
    table = Table()
    table.say([user("a")], bot("b"))
    rows = table.say([user("something else")])
    assert table.path(rows.start.placement.prompt_message_id) == ["a", "b", "something else"]


def test_the_same_request_twice_gives_two_sibling_replies() -> None:
    """The question is stored once."""
    table = Table()
    first, second = table.say([user("a")], bot("b")), table.say([user("a")], bot("B"))
    assert table.contents() == ["a", "b", "B"]
    assert first.start.placement.prompt_message_id == second.start.placement.prompt_message_id
    assert (table.rows[list(table.rows)[1]].position, table.rows[list(table.rows)[2]].position) == (1, 1)


def test_the_same_reply_twice_is_one_message_of_two_runs() -> None:
    """Both runs name it as their response; its own `run_id` is that of the first run."""
    table = Table()
    first, second = table.say([user("a")], bot("b")), table.say([user("a")], bot("b"))
    assert first.seal is not None
    assert second.seal is not None
    assert first.seal.response_message_id == second.seal.response_message_id
    assert table.contents() == ["a", "b"]
    assert list(table.rows.values())[1].run_id == first.start.run_id


def test_all_choices_of_a_run_follow_its_prompt() -> None:
    """The first choice is the response of the run."""
    table = Table()
    rows = table.say([user("a")], bot("x"), bot("y"), bot("x"))
    assert table.contents() == ["a", "x", "y"]
    assert {row.parent_id for row in table.rows.values() if row.role == "assistant"} == {
        rows.start.placement.prompt_message_id
    }
    # Equal times would leave their order open.
    assert len({row.created_at for row in table.rows.values()}) == 3
    assert rows.seal is not None
    assert table.path(rows.seal.response_message_id) == ["a", "x"]


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "the other way round"])
def test_a_batch_may_hold_several_turns(reverse: bool) -> None:
    """The turns of a batch are threaded in the order of their calls."""
    table = Table()
    batch = [table.run([user("a")], bot("b")), table.run([user("a"), bot("b"), user("c")], bot("d"))]
    table.store(*(reversed(batch) if reverse else batch))
    assert batch[1].seal is not None
    assert table.path(batch[1].seal.response_message_id) == ["a", "b", "c", "d"]
    assert len(table.rows) == 4


def test_equal_messages_of_two_conversations_are_two_messages() -> None:
    """Each has an id of its own."""
    table, other = Table(), Table()
    here = table.run([user("a")], bot("b"))
    there = other.run([user("a")], bot("b"), conversation_id="d")
    settle([here, there], thread([here, there], Known()))
    ids = {row.id for rows in (here, there) for row in rows.messages}
    assert len(ids) == 4
    assert [row.conversation_id for row in there.messages] == ["d", "d"]


def test_a_new_conversation_is_not_looked_up() -> None:
    """None of its messages can be stored, so a new run costs no query."""
    table = Table()
    fresh, known, empty = table.run([user("a")], fresh=True), table.run([user("b")]), table.run([])
    with pytest.raises(StopIteration):
        next(look_up([fresh]))
    assert next(look_up([fresh, known, empty])).keys == [["c", None, None]]


def test_the_reply_of_a_run_without_messages_has_no_parent() -> None:
    """Its position is 0."""
    table = Table()
    table.say([], bot("b"), fresh=True)
    assert [(row.parent_id, row.position) for row in table.rows.values()] == [(None, 0)]


def test_a_reply_of_a_later_batch_follows_the_prompt_of_its_run() -> None:
    """Other messages were stored in between."""
    table = Table()
    whole = table.run([user("a")], bot("late"))
    begun = RunRows(whole.start, opens=True)
    table.store(begun)
    table.say([user("b")], bot("early"))
    ended = RunRows(whole.start, opens=False, seal=whole.seal)
    table.store(ended)
    assert whole.seal is not None
    assert table.path(whole.seal.response_message_id) == ["a", "late"]


CALL = {"name": "look", "args": {"x": 1, "y": [2]}, "id": "call_1"}
TURN = [user("weather?"), AIMessage("", tool_calls=[CALL]), ToolMessage("sunny", "call_1")]
SENT_BACK: dict[str, list[Any]] = {
    "our own messages": TURN,
    "OpenAI dicts": [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"x":1,"y":[2]}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ],
    "re-spaced and re-ordered arguments": [
        ("user", "weather?"),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "type": "function",
                 "function": {"name": "look", "arguments": '{ "y" : [2],\n"x": 1 }'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ],
    "trailing space stripped, metadata added": [
        {"type": "human", "content": "weather?  \n"},
        AIMessage("", tool_calls=[CALL], id="run-1", response_metadata={"model_name": "m"}),
        ToolMessage("sunny", "call_1", name="look"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", SENT_BACK)
def test_a_message_is_recognised_in_every_form_in_which_it_is_sent_again(form: str) -> None:
    """The three messages of the turn are stored once."""
    table = Table()
    table.say(TURN[:1], TURN[1])
    rows = table.say([*SENT_BACK[form], {"role": "user", "content": "thanks"}], bot("welcome"))
    assert len(table.rows) == 5, table.contents()
    assert rows.start.placement.position == 3


def test_a_reply_is_recognised_when_it_is_sent_again_without_its_reasoning() -> None:
    """Applications do not send reasoning back to the model."""
    table = Table()
    table.say([user("a")], AIMessage("b", additional_kwargs={"reasoning_content": "hm"}))
    table.say([user("a"), bot("b"), user("c")])
    assert table.contents() == ["a", "b", "c"]


def test_a_plain_message_has_no_parts() -> None:
    """Role and content are enough for it; other messages are stored whole in `parts`."""
    table = Table()
    picture = HumanMessage([{"type": "text", "text": "what is \x00\ud800?"}, {"type": "image", "data": "x"}])
    table.say([SystemMessage("be kind"), picture], AIMessage("", tool_calls=[CALL]))
    [system] = table.context.values()
    user_message, answer = table.rows.values()
    assert (system.role, system.content, system.parts) == ("system", "be kind", None)
    assert user_message.content == "what is \ufdd00000\ufdd0d800?"
    assert from_dict(unescape_json(json.loads(user_message.parts or ""))) == picture
    assert from_dict(json.loads(answer.parts or "")) == AIMessage("", tool_calls=[CALL])


def test_a_run_is_threaded_again_when_its_batch_failed() -> None:
    """A message of another run cannot be written; the good run is stored without that one."""
    table = Table()
    table.say([user("a")], bot("b"))
    good = table.run([user("c")], bot("d"))
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    bad = table.run([HumanMessage([{"type": "file", "data": deep}])], conversation_id="d", fresh=True)
    with pytest.raises(RecursionError):
        table.store(good, bad)
    table.store(good)
    assert good.seal is not None
    assert table.path(good.seal.response_message_id) == ["a", "b", "c", "d"]
    assert [row.content for row in good.messages] == ["c", "d"]
    assert len(table.rows) == 4


def test_messages_are_ordered_by_their_calls_and_not_by_their_times() -> None:
    """The second run has an earlier time than the reply of the first, in the same batch."""
    table = Table()
    first = table.run([user("a")], bot("b"))
    second = table.run([user("a"), bot("b"), user("c")], bot("d"), started_at=START + timedelta(seconds=0.5))
    table.store(second, first)
    assert table.contents() == ["c", "d", "a", "b"]
    assert [row.run_id for row in table.rows.values()] == [
        None,
        second.start.run_id,
        None,
        first.start.run_id,
    ]


# -- messages without a run ----------------------------------------------------------------------------------


def test_an_added_message_follows_the_newest_message() -> None:
    """The newest message is stored, in the same batch or in the same addition."""
    table = Table()
    table.store(table.add("one", "two", at=0))
    table.store(table.add("three", at=1), table.add("four", at=2))
    assert table.path(list(table.rows)[-1]) == ["one", "two", "three", "four"]
    assert [row.position for row in table.rows.values()] == [0, 1, 2, 3]


@pytest.mark.parametrize("at", [0, 0.5, 1, 1.5])
def test_a_message_added_while_a_run_is_open_is_a_branch_beside_its_reply(at: float) -> None:
    """The run begins at 0 and ends at 1; a message that is added after its end follows the reply."""
    table = Table()
    table.store(table.run([user("a")], bot("b")), table.add("added", at=at))
    [added] = [row for row in table.rows.values() if row.content == "added"]
    assert table.path(added.id) == (["a", "added"] if at < 1 else ["a", "b", "added"])


def test_equal_added_messages_are_stored_each_time() -> None:
    """Their times grow although the clock is set back, so the newest message is still the newest when it is read."""
    table = Table()
    for at in (100, 100, 50, 50, 0):
        table.store(table.add("again", at=at))
    assert table.contents() == ["again"] * 5
    newest = table.newest
    assert newest is not None
    assert newest.position == 4
    times = [row.created_at for row in table.rows.values()]
    assert times == sorted(set(times))


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "in two"])
def test_a_run_that_follows_many_added_messages_is_the_newest(at_once: bool) -> None:
    """The messages have times a microsecond apart, later than the begin and the end of the run."""
    table = Table()
    many = table.add(*(f"{number}" for number in range(10_000)), at=0)
    run = table.run([user("question")], bot("answer"), started_at=START, order=20_000)
    assert run.seal is not None
    run.seal.end.ended_at, run.seal.end.order = START + timedelta(microseconds=1), 20_001
    if at_once:
        table.store(many, run)
    else:
        table.store(many)
        table.store(run)
    newest = table.newest
    assert newest is not None
    assert table.path(newest.id)[-3:] == ["9999", "question", "answer"]
    assert (run.start.started_at, run.seal.end.ended_at) == (START, START + timedelta(microseconds=1))


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "three batches"])
def test_an_added_message_follows_the_reply_that_was_stored_last(together: bool) -> None:
    """A reply that was stored before does not become the newest one, however the parts are batched."""
    table = Table()
    parts: list[Part] = [
        table.run([user("a")], bot("x"), bot("y"), bot("x")),
        table.run([user("a")]),
        table.add("added", at=9),
    ]
    for batch in [parts] if together else [[part] for part in parts]:
        table.store(*batch)
    assert table.path(list(table.rows)[-1]) == ["a", "y", "added"]


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_an_added_message_follows_an_edit_whose_clock_was_set_back(together: bool) -> None:
    """The added message is later than all stored ones, so it is read as the end of the conversation."""
    table = Table()
    table.say([user("a")], bot("b"))
    edit = table.run([user("a"), bot("c")], started_at=START - timedelta(seconds=50))
    moment = START - timedelta(seconds=40)
    added = Addition("c", None, moment, AddedMessages.made_of([Added(9_000, moment, user("added"))]))
    batches: list[list[Part]] = [[edit, added]] if together else [[edit], [added]]
    for batch in batches:
        table.store(*batch)
    newest = table.newest
    assert newest is not None
    assert newest.id == added.messages[0].id
    assert added.messages[0].created_at > max(
        row.created_at for row in table.rows.values() if row.content != "added"
    )
