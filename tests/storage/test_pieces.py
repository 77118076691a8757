"""A large batch is inserted in pieces: what is stored is the same, and all of it or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recorder.messages import AIMessage, HumanMessage
from recorder.storage import pieces
from recorder.storage.batch import Added, AddedMessages, Addition, Batch, Part, RunRows, RunSeal
from recorder.storage.dialects import Statements
from recorder.storage.pieces import pieces_of
from recorder.storage.rows import MessageRow, PreviousResponse, SegmentRow
from recorder.storage.store import SqlStore
from recorder.storage.unnamed_conversations import UnnamedConversation
from tests import postgres
from tests.oracle import new_url, run_end, run_start, sql
from tests.stores import PRODUCER, using

START = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of the tests are large."""
    monkeypatch.setattr(pieces, "LEAST_MESSAGES", 3)


def run(number: int, conversation: str, *texts: str) -> RunRows:
    """A run with this history, an answer and a token."""
    at = START + timedelta(seconds=number)
    history = [(AIMessage if text.startswith("answer") else HumanMessage)(text) for text in texts]
    start = run_start(
        number, conversation_id=conversation, fresh=False, started_at=at, order=2 * number, messages=history
    )
    end = run_end(replies=[AIMessage(f"answer {number}")])
    end.ended_at, end.order = at, 2 * number + 1
    rows = RunRows(start, opens=True, seal=RunSeal(end, 1, "", None))
    rows.segments = [SegmentRow(start.run_id, 0, 1, '[[0,"x"]]')]
    return rows


def addition(number: int, conversation: str, *texts: str) -> Addition:
    """Messages that the application adds."""
    at = START + timedelta(seconds=number)
    added = AddedMessages.made_of(Added(2 * number, at, HumanMessage(text)) for text in texts)
    return Addition(conversation, None, at, added, order=2 * number)


def mixed(random: Random, count: int) -> tuple[list[RunRows], list[Addition]]:
    """Turns of several conversations, each with its whole history, and messages that were added."""
    said: dict[str, list[str]] = {}
    runs, additions = [], {}
    for number in range(count):
        conversation = f"c{random.randrange(7)}"
        if conversation not in said and random.random() < 0.3:
            additions[conversation] = addition(number, conversation, "hello", "again")
            said[conversation] = ["hello", "again"]
            continue
        history = [*said.get(conversation, []), f"question {number}"]
        runs.append(run(number, conversation, *history))
        said[conversation] = [*history, f"answer {number}"]
    return sorted(runs, key=lambda rows: rows.start.run_id), [*additions.values()]


def stored(url: str) -> dict[str, Any]:
    """All that is stored, apart from the index of the search: of large batches it is made later."""
    columns = {"messages": ", ".join(MessageRow._fields)}
    return {
        table: sorted(map(repr, sql(url, f"SELECT {columns.get(table, '*')} FROM {table}")))
        for table in ("conversations", "messages", "runs", "segments")
    }


def conversation_of(part: Part) -> str:
    """The conversation in which its messages are."""
    return part.conversation_id if isinstance(part, Addition) else part.start.conversation_id


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("small_pieces")
def test_each_conversation_is_in_one_piece_and_pieces_are_sorted(seed: int) -> None:
    """So two writers insert rows in the same order."""
    batch = Batch(PRODUCER, *mixed(Random(seed), 40))
    found = pieces_of(batch)
    assert len(found) > 1
    assert Counter(id(part) for piece in found for part in piece.parts) == Counter(map(id, batch.parts))
    names = [sorted({conversation_of(part) for part in piece.parts}) for piece in found]
    assert [name for piece in names for name in piece] == sorted(
        {conversation_of(part) for part in batch.parts}
    )
    for piece in found:
        groups = [{conversation_of(part) for part in group} for group in piece.groups]
        assert sum(map(len, groups)) == len(set().union(*groups))


@pytest.mark.usefixtures("small_pieces")
def test_a_conversation_that_is_looked_for_keeps_the_batch_in_one_piece() -> None:
    """It may be any of the others."""
    runs, additions = mixed(Random(1), 40)
    assert len(pieces_of(Batch(PRODUCER, runs, additions))) > 1
    runs[3].start.previous = PreviousResponse("resp_1", is_read_again=False)
    assert len(pieces_of(Batch(PRODUCER, runs, additions))) == 1
    runs[3].start.previous = None
    runs[3].start.unnamed = UnnamedConversation("c3")
    assert len(pieces_of(Batch(PRODUCER, runs, additions))) == 1


def test_a_small_batch_is_one_piece() -> None:
    """As a batch beside a stream is."""
    batch = Batch(PRODUCER, *mixed(Random(1), 40))
    [piece] = pieces_of(batch)
    assert piece.parts == batch.parts


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", range(3))
def test_pieces_store_the_same_rows(
    seed: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one statement does; the second batch continues what the first one stored."""
    found = []
    for least in (1_000, 3):
        monkeypatch.setattr(pieces, "LEAST_MESSAGES", least)
        url = new_url(tmp_path, f"{least}.db") if kind == "sqlite" else postgres.new_database()
        runs, additions = mixed(Random(seed), 60)
        early = [rows for rows in runs if rows.start.order < 60]
        late = [rows for rows in runs if rows.start.order >= 60]

        async def story(store: SqlStore, early: Sequence[RunRows] = early, late: Sequence[RunRows] = late,
                        additions: Sequence[Addition] = additions) -> None:  # fmt: skip
            await store.open()
            await store.append(Batch(PRODUCER, early, additions))
            await store.append(Batch(PRODUCER, late))

        using(url, story)
        found.append(stored(url))
        if kind == "postgres":
            postgres.drop(url)
    assert found[0] == found[1]
    assert found[0]["segments"]


@pytest.mark.usefixtures("small_pieces")
def test_an_error_in_a_later_piece_leaves_nothing_and_a_retry_stores_all(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its parts have their places already then."""
    runs, additions = mixed(Random(5), 40)
    batch = Batch(PRODUCER, runs, additions)

    async def story(store: SqlStore) -> list[int]:
        await store.open()
        insert, calls = store.dialect.insert, []

        async def failing(connection: Any, statements: Statements) -> list[int]:
            calls.append(statements)
            if len(calls) == 2:
                raise OSError("the connection was lost")
            return await insert(connection, statements)

        monkeypatch.setattr(store.dialect, "insert", failing)
        with pytest.raises(OSError, match="lost"):
            await store.append(batch)
        assert len({part.threaded for part in batch.parts}) == 2
        [before] = (await store.rows("SELECT count(*) AS n FROM messages"))[0].values()
        await store.append(batch)
        [after] = (await store.rows("SELECT count(*) AS n FROM messages"))[0].values()
        return [before, after]

    expected = sum(2 for _ in additions) + 2 * len(runs)
    assert using(database, story) == [0, expected]
