"""`Session`: the memory of an agent of OpenAI Agents, over a recorded conversation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from recorder.integrations.agents.items import Item, items_of, messages_of
from recorder.integrations.agents.reply_items import reply_items
from recorder.memory.branch_reader import View
from recorder.memory.conversation_memory import (
    CLEARED,
    POPPED,
    ConversationMemory,
    remembered,
)
from recorder.replay.queries import Queries
from recorder.storage.newest_branch import BranchMessage


class Session:
    """The items of a recorded conversation: `Runner.run(agent, "Hello!", session=Session("c1", history))`.

    `history` is the `ChatHistoryCallback` that records the conversation; it also stores what is added. If a client that
    `recorder.attach` records is in the same conversation, each message is stored once, although both see it.
    `session_settings` are those of OpenAI Agents. `user` is the user to whom the conversation belongs; the default is
    that of `with history.user(...)`.

    The items are those of the newest branch. Reading waits until what was recorded before is committed, at most five
    seconds, and then raises `StoreError`. Adding raises as `ChatHistoryCallback.add_messages` does.
    """

    def __init__(
        self, session_id: str, history: Any, *, session_settings: Any = None, user: str | None = None
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self._memory = ConversationMemory(session_id, history, user)

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """The items of the memory, from the first to the last; with `limit` only so many of the last ones."""
        if limit is None:
            limit = getattr(self.session_settings, "limit", None)
        items = await self._memory.aread(self._items)
        return items if limit is None else items[-limit:] if limit > 0 else []

    async def add_items(self, items: Sequence[Any]) -> None:
        """Store items below the newest message, except those that are recorded already."""
        if items:
            added = messages_of([*items])
            self._memory.add(await self._memory.aread(_view), added)

    async def pop_item(self) -> Any:
        """Return the last item, and let the memory go on from the one before; None if it is empty.

        What was recorded stays stored, with a note below it.
        """
        items = await self._memory.aread(self._items)
        if not items:
            return None
        self._memory.note(POPPED)
        return items[-1]

    async def clear_session(self) -> None:
        """Let the memory begin anew. What was recorded before stays stored, with a note below it."""
        if await self._memory.aread(self._items):
            self._memory.note(CLEARED)

    def _items(self, view: View) -> Queries[list[Item]]:
        found: dict[str, list[Item]] = {}
        for each in view.branch.messages:
            found[each.id] = yield from self._items_of(each)
        return remembered(view.branch.messages, lambda each: found[each.id])

    def _items_of(self, each: BranchMessage) -> Queries[list[Item]]:
        known: list[Item] | None = self._memory.replies.get(each.id)
        if known is None:
            known = yield from reply_items(each)
            if known is None:
                return items_of(each.message)
            self._memory.replies.put(each.id, known)
        return deepcopy(known)


def _view(view: View) -> Queries[View]:
    yield from ()
    return view
