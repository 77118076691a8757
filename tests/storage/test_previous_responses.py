"""A request of the Responses API that names a response goes below it, also in another process."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.replay import Replay
from recorder.storage import previous_responses
from recorder.testing.memory_store import MemoryStore
from recorder.wire.openai import responses
from tests.oracle import begin, finish, say, sql


def turn(
    history: ChatHistoryCallback, question: str, response: str, *, after: str | None = None,
    again: str | None = None, reply: str | None = None, **more: Any,
) -> uuid.UUID:  # fmt: skip
    """Record a run of the Responses API that answers with this response, and return its id."""
    named = {"previous_response_id": after, "response_id": again}
    parameters = {"model": "m", **{key: value for key, value in named.items() if value is not None}}
    messages = [] if again is not None else [HumanMessage(question)]
    run_id = uuid.uuid4()
    history.on_chat_model_start(
        {}, [messages], run_id=run_id, wire="openai.responses", invocation_params=parameters, **more
    )
    text = reply or f"{question}!"
    say(history, run_id, [text])
    finish(history, run_id, text, output={"id": response})
    return run_id


def parents(database: str) -> dict[str, str | None]:
    """Text of a message -> text of the message before it; only for texts that are there once."""
    query = "SELECT m.content, p.content FROM messages AS m LEFT JOIN messages AS p ON p.id = m.parent_id"
    rows = sql(database, f"{query} AND p.conversation_id = m.conversation_id")
    assert len(rows) == len(dict(rows)), rows
    return dict(rows)


def conversations(database: str) -> list[Any]:
    """The number of messages of each conversation."""
    counts = sql(database, "SELECT count(*) FROM messages GROUP BY conversation_id ORDER BY 1")
    return [count for (count,) in counts]


def test_the_name_of_the_wire_format_is_that_of_its_translator() -> None:
    """The index in the database has it, too."""
    assert previous_responses.WIRE == responses.WIRE


@pytest.mark.parametrize("interval", [0.0, 3600], ids=["batch by batch", "in one batch"])
def test_turns_of_one_process_are_one_conversation(database: str, interval: float) -> None:
    """Each request has only its new message."""
    with ChatHistoryCallback(database, flush_interval=interval) as history:
        for number, question in enumerate(("one", "two", "three")):
            turn(history, question, f"r{number}", after=f"r{number - 1}" if number else None)
            if not interval:
                history.flush().wait()
    assert parents(database) == {
        "one": None, "one!": "one", "two": "one!", "two!": "two", "three": "two!", "three!": "three",
    }  # fmt: skip


def test_turns_of_several_processes_are_one_conversation(database: str) -> None:
    """Each request is recorded by another recorder, which finds the response in the database."""
    for number, question in enumerate(("one", "two", "three")):
        with ChatHistoryCallback(database) as history:
            turn(history, question, f"r{number}", after=f"r{number - 1}" if number else None)
    assert conversations(database) == [6]
    with Replay(database) as replay:
        [(id,)] = sql(database, "SELECT id FROM conversations")
        assert [each.text for each in replay.messages(id)] == [
            "one",
            "one!",
            "two",
            "two!",
            "three",
            "three!",
        ]


def test_a_request_that_names_an_older_response_is_a_branch(database: str) -> None:
    """It goes below that response, and not below the newest message."""
    with ChatHistoryCallback(database) as history:
        turn(history, "one", "r1")
        turn(history, "two", "r2", after="r1")
        history.flush().wait()
        turn(history, "or this", "r3", after="r1")
    assert parents(database)["or this"] == "one!"
    assert conversations(database) == [6]


def test_the_same_request_again_is_another_answer(database: str) -> None:
    """The message is stored once, also by another process."""
    for number in range(3):
        with ChatHistoryCallback(database) as history:
            if not number:
                turn(history, "one", "r")
            turn(history, "two", f"r{number}", after="r", reply=f"answer {number}")
    found = parents(database)
    assert [found[f"answer {number}"] for number in range(3)] == ["two"] * 3
    assert found["two"] == "one!"


def test_an_unknown_response_begins_a_conversation(database: str) -> None:
    """It was not recorded, or not in this database."""
    with ChatHistoryCallback(database) as history:
        turn(history, "one", "r1")
        turn(history, "two", "r2", after="elsewhere")
        turn(history, "three", "r3", after="r2")
    assert parents(database) == {
        "one": None, "one!": "one", "two": None, "two!": "two", "three": "two!", "three!": "three",
    }  # fmt: skip


def test_a_response_of_another_format_is_not_meant(database: str) -> None:
    """An id of a chat completion is no name of a response."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, HumanMessage("chat"), wire="openai.chat")
        finish(history, run_id, "chat!", output={"id": "r1"})
        turn(history, "two", "r2", after="r1")
    assert parents(database)["two"] is None


def test_the_conversation_that_the_application_names_wins(database: str) -> None:
    """Then the request is a request like others in it."""
    with ChatHistoryCallback(database) as history:
        turn(history, "one", "r1")
        with history.conversation("mine"):
            turn(history, "two", "r2", after="r1")
            turn(history, "three", "r3", after="r2")
    assert sql(database, "SELECT DISTINCT conversation_id FROM messages WHERE content = 'two'") == [("mine",)]
    assert parents(database)["three"] == "two!"


def test_a_named_conversation_is_continued_without_its_name(database: str) -> None:
    """The response says where it stands."""
    with ChatHistoryCallback(database) as history:
        with history.conversation("mine"):
            turn(history, "one", "r1")
        turn(history, "two", "r2", after="r1")
    assert sql(database, "SELECT DISTINCT conversation_id FROM runs") == [("mine",)]


def test_another_user_who_names_the_response_is_kept_apart(database: str) -> None:
    """The conversation belongs to the first user."""
    with ChatHistoryCallback(database) as history:
        with history.user("ann"):
            turn(history, "one", "r1")
        history.flush().wait()
        with history.user("ben"):
            turn(history, "two", "r2", after="r1")
            turn(history, "three", "r3", after="r2")
    found = dict(sql(database, "SELECT content, conversation_id FROM messages"))
    assert found["two"] == found["three"] != found["one"]
    assert parents(database)["two"] is None


@pytest.mark.parametrize("interval", [0.0, 3600], ids=["batch by batch", "in one batch"])
def test_a_response_that_is_read_again_has_the_prompt_of_the_first_run(
    database: str, interval: float
) -> None:
    """Reading a response in the background again sends no message."""
    with ChatHistoryCallback(database, flush_interval=interval) as history:
        turn(history, "one", "r1", reply="the beg")
        turn(history, "two", "r2", after="r1")
        history.flush().wait() if not interval else None
        turn(history, "", "r1", again="r1", reply="the beginning")
    assert parents(database)["the beginning"] == "one"
    assert conversations(database) == [5]


def test_a_run_without_a_reply_is_continued_below_its_prompt(database: str) -> None:
    """The response failed, or was cut before its first token."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, HumanMessage("one"), wire="openai.responses")
        finish(history, run_id, output={"id": "r1"})
        history.flush().wait()
        turn(history, "two", "r2", after="r1")
    assert parents(database) == {"one": None, "two": "one", "two!": "two"}


def test_what_was_sent_is_read_back(database: str) -> None:
    """A run's request has only the new message."""
    with ChatHistoryCallback(database) as history:
        turn(history, "one", "r1")
        turn(history, "two", "r2", after="r1")
    assert sql(database, "SELECT input FROM runs ORDER BY started_at") == [(None,), ('["2"]',)]


@pytest.mark.parametrize("interval", [0.0, 3600], ids=["batch by batch", "in one batch"])
def test_random_conversations_stand_as_their_requests_named_them(database: str, interval: float) -> None:
    """Two recorders record several conversations, with branches, against a plain model of them."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, expected = random.Random(seed), dict[str, str | None]()
    with ChatHistoryCallback(database) as one, ChatHistoryCallback(database, flush_interval=interval) as two:
        for number in range(40):
            recorder = chance.choice((one, two))
            before = chance.choice([None, *range(number)][: 1 + number])
            turn(recorder, f"q{number}", f"r{number}", after=f"r{before}" if before is not None else None)
            expected[f"q{number}"] = f"q{before}!" if before is not None else None
            expected[f"q{number}!"] = f"q{number}"
            # The response must be stored before another process names it.
            recorder.flush().wait()
    assert parents(database) == expected


def test_a_store_in_memory_finds_responses_as_well() -> None:
    """Tests of applications see the same conversations."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history:
        turn(history, "one", "r1", reply="the beg")
        history.flush().wait()
        turn(history, "two", "r2", after="r1")
        turn(history, "", "r1", again="r1", reply="the beginning")
    rows = {row.content: row for row in store.messages.values()}
    assert rows["two"].parent_id == rows["the beg"].id
    assert rows["the beginning"].parent_id == rows["one"].id
