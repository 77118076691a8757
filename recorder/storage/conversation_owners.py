"""To which user a conversation belongs: the first one who was named with it.

Ids of conversations may come from a browser. What another user records under the same id must not get into the
conversation, so such a batch is refused, and the writer names the conversation anew (`recording/kept_apart.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.storage.batch import Batch
from recorder.storage.schema import conversations
from recorder.storage.store_interface import ConversationTaken

#: For so many conversations it is remembered that they belong to the user who records into them.
_REMEMBERED = 10_000
#: Conversations of one query.
_PART = 500

#: A conversation and a user.
Key = tuple[str, str]


class ConversationOwners:
    """The owners of conversations, as far as this store has read them."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, None] = OrderedDict()

    async def check(self, connection: AsyncConnection, batch: Batch) -> list[Key]:
        """The keys of the batch that were checked; `remember` them after the commit.

        The conversations of the batch are stored already in this transaction. One without a user gets that of the
        batch. Raises `ConversationTaken`.
        """
        keys = [key for key in keys_of(batch) if key not in self._known]
        for start in range(0, len(keys), _PART):
            part = keys[start : start + _PART]
            owners = await self._owners(connection, part)
            if unowned := [key for key in part if owners.get(key[0]) is None]:
                for id, user in sorted(dict(reversed(unowned)).items()):
                    free = conversations.c.id == id, conversations.c.user_id.is_(None)
                    await connection.execute(update(conversations).where(*free).values(user_id=user))
                owners |= await self._owners(connection, unowned)
            refuse_taken(owners, part)
        return keys

    def remember(self, keys: Iterable[Key]) -> None:
        """These conversations belong to these users."""
        self._known |= dict.fromkeys(keys)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _owners(self, connection: AsyncConnection, keys: Collection[Key]) -> dict[str, str | None]:
        query = select(conversations.c.id, conversations.c.user_id)
        found = await connection.execute(query.where(conversations.c.id.in_([id for id, _ in keys])))
        return {row.id: row.user_id for row in found}


def keys_of(batch: Batch) -> list[Key]:
    """The conversations into which the users of this batch record, in the order of their beginning."""
    users = {rows.start.user_id for rows in batch.runs if rows.opens} | {
        each.user_id for each in batch.additions
    }
    if users <= {None}:  # nearly always
        return []
    named = ((id, user) for _, id, user, _ in batch.named_conversations if user is not None)
    return list(dict.fromkeys(named))


def refuse_taken(owners: dict[str, str | None], keys: Iterable[Key]) -> None:
    """Raise `ConversationTaken` for the keys whose conversation belongs to another user."""
    if others := {(id, user) for id, user in keys if owners.get(id, user) != user}:
        raise ConversationTaken(others)
