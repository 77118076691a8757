"""A user who names another user's conversation does not get into it."""

from __future__ import annotations

import logging
import random

import pytest

from recorder import ChatHistoryCallback
from recorder.core.ids import MAX_CONVERSATION_ID, id_of_user
from recorder.messages import AIMessage, HumanMessage
from recorder.replay import Replay
from tests.oracle import record, sql, start_python


def contents(database: str) -> dict[tuple[str, str | None], list[str]]:
    """The texts of each conversation and user, in their order."""
    rows = sql(
        database,
        "SELECT c.id, c.user_id, m.content FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id "
        "ORDER BY m.created_at",
    )
    found: dict[tuple[str, str | None], list[str]] = {}
    for id, user, text in rows:
        found.setdefault((id, user), []).append(text)
    return found


@pytest.mark.parametrize("interval", [0, 3600], ids=["batch by batch", "in one batch"])
def test_what_another_user_records_under_an_id_is_kept_apart(
    database: str, interval: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests, replies, added messages and a title; the log says once where they are. The owner's run goes on."""
    with ChatHistoryCallback(database, flush_interval=interval) as history:
        with history.conversation("c", user="ada"):
            record(history, HumanMessage("a1"), reply="b1")
        with history.conversation("c", user="eve", title="Mine"):
            record(history, HumanMessage("e1"), reply="f1")
            history.add_messages("more")
            record(history, *map(HumanMessage, ["e1"]), AIMessage("f1"), HumanMessage("e2"), reply="f2")
        with history.conversation("c", user="ada"):
            record(history, HumanMessage("a1"), AIMessage("b1"), HumanMessage("a2"), reply="b2")
        with history.conversation("c"):
            history.add_messages("by nobody")
    found = contents(database)
    assert found.pop(("c", "ada")) == ["a1", "b1", "a2", "b2", "by nobody"]
    assert found == {("c@eve", "eve"): ["e1", "f1", "more", "e2", "f2"]}
    titles = "SELECT id, title FROM conversations ORDER BY id"
    assert sql(database, titles) == [("c", None), ("c@eve", "Mine")]
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == [
        "Conversation 'c' belongs to another user; what user 'eve' records under this id is stored as 'c@eve'"
    ]
    with Replay(database) as replay:
        assert [each.text for each in replay.messages("c@eve")] == ["e1", "f1", "e2", "f2"]


def test_the_id_of_a_user_may_be_taken_as_well(database: str) -> None:
    """Then another one is found, the same each time, also by the next process."""
    for turn in range(2):
        with ChatHistoryCallback(database) as history:
            for user in ("ada", "eve", "mallory"):
                with history.conversation("c@eve" if user == "mallory" else "c", user=user):
                    record(history, HumanMessage(f"{user} {turn}"))
                history.flush().wait(10)
            with history.conversation("c@eve", user="eve"):
                record(history, HumanMessage(f"eve again {turn}"))
    users = {(id, user) for id, user in contents(database)}
    assert users == {("c", "ada"), ("c@eve", "eve"), ("c@eve@mallory", "mallory")}


def test_a_long_id_becomes_a_uuid() -> None:
    """The ids of conversations are limited; users' ids are not."""
    assert id_of_user("c", "u") == "c@u"
    assert len(id_of_user("c" * MAX_CONVERSATION_ID, "u")) == 36
    assert id_of_user("c", "u" * 999) != id_of_user("c", "v" * 999)


def test_the_first_user_gets_a_conversation_without_one(database: str) -> None:
    """An application may name users from some day on."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        record(history, HumanMessage("1"))
        history.flush().wait(10)
        for user in ("ada", "eve", "ada"):
            with history.user(user):
                record(history, HumanMessage(user))
    assert {key: texts[0] for key, texts in contents(database).items()} == {
        ("c", "ada"): "1", ("c@eve", "eve"): "eve",
    }  # fmt: skip


def test_nothing_is_mixed_or_lost_when_users_of_several_processes_meet(database: str) -> None:
    """Three processes with three users, the same ids. Whoever was first has the id, and each text is there once."""
    code = """
import random, sys
from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from tests.oracle import record
url, user, seed = sys.argv[1:]
chance = random.Random(int(seed))
print("ready", flush=True)
sys.stdin.readline()
with ChatHistoryCallback(url, flush_interval=0.002) as history:
    for number in range(30):
        with history.conversation(f"c{chance.randrange(6)}", user=user):
            record(history, HumanMessage(f"{user} {number}"), reply=f"to {user} {number}")
"""
    seed = random.randrange(10**6)
    print("seed", seed)
    processes = {user: start_python(code, database, user, seed + n) for n, user in enumerate("abc")}
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes.values():
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    found = contents(database)
    for (_, user), texts in found.items():
        assert {text.split()[-2] for text in texts} == {user}
    every = sorted(text for texts in found.values() for text in texts)
    assert every == sorted(f"{start}{user} {n}" for user in "abc" for n in range(30) for start in ("", "to "))
    owners = [id for id, _ in found]
    assert len(owners) == len(set(owners))
