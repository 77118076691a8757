"""A conversation belongs to the first user whose rows were committed with it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncTransaction

from recorder.core.clock import now
from recorder.messages import HumanMessage
from recorder.storage.batch import Added, AddedMessages, Addition, Batch
from recorder.storage.store import SqlStore
from recorder.storage.store_interface import ConversationTaken
from tests.oracle import sql
from tests.stores import PRODUCER, statements_of, using


def of_user(user: str, conversation_id: str = "c", text: str = "Hi") -> Batch:
    """A batch with a message that this user adds."""
    return Batch(
        PRODUCER,
        [],
        [
            Addition(
                conversation_id, user, now(), AddedMessages.made_of([Added(1, now(), HumanMessage(text))])
            )
        ],
    )


def test_a_user_whose_commit_failed_does_not_own_the_conversation(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user was first meanwhile. The retry is refused, although the first try had found nobody."""
    commit, failures = AsyncTransaction.commit, [OSError("the connection is lost")]

    async def failing(transaction: Any) -> None:
        if failures:
            raise failures.pop()
        await commit(transaction)

    async def story(store: SqlStore) -> None:
        late = of_user("bob")
        monkeypatch.setattr(AsyncTransaction, "commit", failing)
        with pytest.raises(OSError, match="the connection is lost"):
            await store.append(late)
        other = SqlStore(database)
        await other.append(of_user("ada"))
        await other.close()
        with pytest.raises(ConversationTaken, match=r"c \(not of bob\)"):
            await store.append(late)

    using(database, story)
    assert sql(database, "SELECT id, user_id FROM conversations") == [("c", "ada")]
    assert sql(database, "SELECT count(*) FROM messages") == [(1,)]


def test_an_owner_is_read_once_by_a_process(database: str) -> None:
    """The next batches of the same user ask for nothing, and those without a user never do."""

    async def story(store: SqlStore) -> None:
        for number in range(4):
            await store.append(of_user("ada", text=str(number)))
        added = AddedMessages.made_of([Added(1, now(), HumanMessage("by nobody"))])
        await store.append(Batch(PRODUCER, [], [Addition("c", None, now(), added)]))

    executed = statements_of(lambda: using(database, story))
    assert len([each for each in executed if each.startswith("SELECT conversations.id")]) == 1


def test_a_conversation_without_an_owner_gets_the_first_user(database: str) -> None:
    """Also if both users come in one batch."""

    async def story(store: SqlStore) -> None:
        added = AddedMessages.made_of([Added(1, now(), HumanMessage("by nobody"))])
        await store.append(Batch(PRODUCER, [], [Addition("c", None, now(), added)]))
        both = [Addition("c", user, now(), order=place) for place, user in enumerate(("ada", "eve"))]
        with pytest.raises(ConversationTaken, match=r"c \(not of eve\)"):
            await store.append(Batch(PRODUCER, [], both))
        await store.append(of_user("ada"))

    using(database, story)
    assert sql(database, "SELECT user_id FROM conversations") == [("ada",)]
