"""`known_messages` answers what has to be known of stored messages, with one statement for any number of keys."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal

from recorder.messages import HumanMessage
from recorder.messages.identity import content_hash
from recorder.storage.known_messages import known_messages
from recorder.storage.store import SqlStore
from recorder.storage.stored_messages import Lookup, StoredMessage
from tests.oracle import sql
from tests.stores import append, execute, statements_of, using, whole_run


def look_up(
    url: str,
    kind: Literal["ids", "newest", "content", "above"],
    keys: Sequence[Sequence[Any]],
    limit: int = 0,
) -> list[StoredMessage]:
    """Look these keys up with a store of its own."""

    async def story(store: SqlStore) -> Sequence[StoredMessage]:
        async with store.transaction() as connection:
            return await known_messages(connection, store.dialect, Lookup(kind, keys, limit))

    return list(using(url, story))


def test_messages_are_found_by_id_in_their_conversation(database: str) -> None:
    """Messages of other conversations are not found."""
    [rows] = whole_run(1)
    append(database, [rows], whole_run(2))
    first, answer = rows.messages
    keys = [
        ["c1", first.id, None],
        ["c1", str(uuid.uuid4()), None],
        ["c2", answer.id, None],
        ["c3", first.id, None],
    ]
    [found] = look_up(database, "ids", keys)
    assert (found.id, found.parent_id, found.position, found.role) == (first.id, None, 0, first.role)
    assert (found.created_at, found.content_hash) == (first.created_at, first.content_hash)
    assert {each.id for each in look_up(database, "ids", [["c1", row.id, None] for row in rows.messages])} == {
        first.id, answer.id,
    }  # fmt: skip


def test_the_newest_message_of_each_conversation_is_found(database: str) -> None:
    """A conversation without messages has none."""
    [one], [two] = whole_run(1), whole_run(2)
    append(database, [one], [two])
    found = look_up(database, "newest", [["c1", None, None], ["c2", None, None], ["c3", None, None]])
    assert {each.conversation_id: each.id for each in found} == {
        "c1": one.messages[-1].id,
        "c2": two.messages[-1].id,
    }


def test_messages_are_found_by_their_content_and_a_path_from_its_end(database: str) -> None:
    """At most as many of each as the limit says."""
    [rows] = whole_run(1)
    append(database, [rows])
    first, answer = rows.messages
    keys = [["c1", None, first.content_hash], ["c1", None, 7], ["c2", None, first.content_hash]]
    assert [each.id for each in look_up(database, "content", keys, limit=2)] == [first.id]
    for number, ids in ((1, [answer.id]), (2, [answer.id, first.id]), (9, [answer.id, first.id])):
        found = look_up(database, "above", [["c1", answer.id, number]])
        assert [each.id for each in found] == ids


def test_the_content_hash_of_an_older_row_is_computed(database: str) -> None:
    """Rows of revision 0002 have none."""
    [rows] = whole_run(1)
    append(database, [rows])
    execute(database, "UPDATE messages SET content_hash = NULL")
    assert sql(database, "SELECT count(*) FROM messages WHERE content_hash IS NULL") == [(2,)]
    found = look_up(database, "ids", [["c1", row.id, None] for row in rows.messages])
    assert {each.content_hash for each in found} == {row.content_hash for row in rows.messages}
    assert content_hash(HumanMessage(rows.messages[0].content)) == rows.messages[0].content_hash


def test_any_number_of_keys_is_looked_up_with_one_statement(database: str) -> None:
    """They are more than one statement may have parameters, in 101 conversations."""
    [rows] = whole_run(1)
    append(database, [rows])
    ids = [row.id for row in rows.messages] + [str(uuid.UUID(int=number)) for number in range(40_000)]
    keys = [["c1", id, None] for id in ids]
    keys += [[f"other {number}", id, None] for number in range(100) for id in ids[:10]]
    statements = statements_of(lambda: look_up(database, "ids", keys))
    assert len([one for one in statements if "messages" in one]) == 1
    assert {each.id for each in look_up(database, "ids", keys)} == {row.id for row in rows.messages}
