"""`known_messages` finds which messages of a batch are stored, and the newest message of each conversation."""

from __future__ import annotations

import uuid

from recorder.storage.known_messages import Paths, known_messages
from recorder.storage.rows import Known
from recorder.storage.store import SqlStore
from tests.stores import append, statements_of, using, whole_run


def look_up(url: str, paths: Paths) -> dict[str, Known]:
    """Look these paths up with a store of its own."""

    async def story(store: SqlStore) -> dict[str, Known]:
        async with store.transaction() as connection:
            return await known_messages(connection, store.dialect, paths)

    found: dict[str, Known] = using(url, story)
    return found


def test_known_messages_returns_stored_messages_and_the_newest_one(database: str) -> None:
    """Messages of other conversations are not found."""
    [rows] = whole_run(1)
    append(database, [rows], whole_run(2))
    times = {row.id: row.created_at for row in rows.messages}
    first, answer = times
    unknown = str(uuid.uuid4())
    paths = {"c1": [[first, unknown], [first, answer]], "c2": [[answer]], "c3": [[first]]}
    found = look_up(database, paths)
    assert (found["c1"].times, found["c1"].newest) == (times, (answer, 1, times[answer]))
    assert (found["c2"].times, found["c2"].newest and found["c2"].newest.position) == ({}, 1)
    assert (found["c3"].times, found["c3"].newest) == ({}, None)
    assert look_up(database, {"c1": []})["c1"] == Known({}, found["c1"].newest)


def test_any_number_of_paths_is_looked_up_with_two_statements(database: str) -> None:
    """The paths have more messages than one statement may have parameters, in 101 conversations."""
    [rows] = whole_run(1)
    append(database, [rows])
    path = [row.id for row in rows.messages] + [str(uuid.UUID(int=number)) for number in range(40_000)]
    paths = {"c1": [path], **{f"other {number}": [path[:10]] for number in range(100)}}
    statements = statements_of(lambda: look_up(database, paths))
    assert len([one for one in statements if "messages" in one]) == 2
    found = look_up(database, paths)
    assert found["c1"].times == {row.id: row.created_at for row in rows.messages}
    assert all(found[key] == Known({}, None) for key in paths if key != "c1")
