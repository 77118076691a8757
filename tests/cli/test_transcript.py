"""The command line reads the rows of the view `transcripts` with a cost that grows linearly with the conversation."""

from __future__ import annotations

import sqlite3
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.cli import queries, render
from recorder.export import import_
from recorder.export.format import write
from recorder.messages import AIMessage, HumanMessage
from recorder.storage import conversation_details
from recorder.storage.rows import ConversationRow, MessageRow
from recorder.storage.transcript import in_order
from tests.oracle import begin, finish, new_url, record, say

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = "message_id, parent_id, branch, position, role, content, status, model, run_id, created_at, error"


def conversation(url: str) -> dict[str, Any]:
    """Return what `recorder show c` reads."""
    return queries.read(url, lambda store: conversation_details.conversation(store, "c"))


def test_a_read_conversation_equals_the_view_transcripts(database: str) -> None:
    """It has two answers, failed runs with and without text, and an open run."""
    prompt = [HumanMessage("Hi")]
    with ChatHistoryCallback(database, conversation_id="c") as history:
        for reply in ("a", "b"):
            record(history, *prompt, reply=reply)
            history.flush().wait(10)
        for texts in (["half ", "of it"], []):
            run_id = begin(history, *prompt, AIMessage("a"), HumanMessage("And?"))
            say(history, run_id, texts)
            history.on_llm_error(ValueError("out of breath"), run_id=run_id)
            history.flush().wait(10)
        open_run = begin(history, *prompt, AIMessage("a"), HumanMessage("And?"))
        say(history, open_run, ["la"])
        history.flush().wait(10)
        found = conversation(database)["messages"]
        view = queries.read(database, lambda store: store.rows(f"SELECT {COLUMNS} FROM transcripts"))
        finish(history, open_run, "la")
    names = COLUMNS.split(", ")
    assert _sorted([{name: row[name] for name in names} for row in found]) == _sorted(view)
    assert len(found) == 7


def _sorted(rows: Any) -> list[Any]:
    return sorted(rows, key=lambda row: (row["position"], row["branch"], str(row["run_id"])))


def test_messages_with_equal_ids_are_ordered_once() -> None:
    """Only a malicious database has them; without this rule each level would double the number of rows."""
    rows = [{"message_id": at, "parent_id": at - 1 if at else None} for at in range(40) for _ in range(2)]
    assert len(in_order(rows)) == len(rows)


def id_of(number: int) -> str:
    """Return an id that sorts by its number."""
    return str(uuid.UUID(int=number))


def filled(folder: Path, count: int, shape: str) -> str:
    """Return a database with a conversation of so many messages: one path ("line"), or all below the first ("star")."""
    url, file = new_url(folder, f"{shape}{count}.db"), folder / f"{shape}{count}.jsonl"
    rows: list[Any] = [ConversationRow("c", None, None, None, START)]
    for number in range(count):
        above = None if number == 0 else number - 1 if shape == "line" else 0
        position = number if shape == "line" else min(number, 1)
        parent = None if above is None else id_of(above)
        at = START + timedelta(seconds=number)
        rows.append(MessageRow("c", id_of(number), parent, position, "user", "Hi", None, None, at))
    file.write_text("".join(write(rows)))
    import_(url, file)
    return url


@pytest.mark.parametrize("shape", ["line", "star"])
def test_reading_grows_linearly_with_the_conversation(shape: str, tmp_path: Path) -> None:
    """Four times the messages take less than six times the steps of SQLite's virtual machine."""
    few, many = (_steps(filled(tmp_path, count, shape)) for count in (500, 2_000))
    assert many < 6 * few


def _steps(url: str) -> int:
    """Count the steps of SQLite's virtual machine, in hundreds, for the queries of `show`."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.set_progress_handler(step, 100)
        for query in (
            conversation_details._MESSAGES,
            conversation_details._RUNS,
            conversation_details._TEXTS,
        ):
            connection.execute(query, {"id": "c"}).fetchall()
    return count


@pytest.mark.parametrize("shape", ["line", "star"])
def test_drawing_grows_linearly_with_the_conversation(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the messages take less than six times the function calls."""
    few, many = (_calls(conversation(filled(tmp_path, count, shape)), monkeypatch) for count in (100, 400))
    assert many < 6 * few


def _calls(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    count = 0

    def called(_frame: object, event: str, _of_the_event: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    monkeypatch.setattr(sys, "stdout", StringIO())
    sys.setprofile(called)
    try:
        render.conversation(found)
    finally:
        sys.setprofile(None)
    return count


def test_a_conversation_is_read_with_five_queries(tmp_path: Path) -> None:
    """The number of queries does not depend on the number of messages."""
    counts = []
    for number in (2, 200):
        url = filled(tmp_path, number, "line")
        statements: list[str] = []

        async def read(store: Any, statements: list[str] = statements) -> Any:
            rows = store.rows

            async def counted(query: str, *given: Any) -> Any:
                statements.append(query)
                return await rows(query, *given)

            store.rows = counted
            return await conversation_details.conversation(store, "c")

        queries.read(url, read)
        counts.append(len(statements))
    assert counts == [5, 5]
