"""`ChatMessageHistory`: LangChain's memory of a chat, over a recorded conversation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from recorder.integrations.langchain.framework import BaseChatMessageHistory
from recorder.memory.branch_reader import View
from recorder.memory.conversation_memory import CLEARED, ConversationMemory, chat_messages
from recorder.messages import messages_from
from recorder.models.langchain_messages import to_langchain
from recorder.replay.queries import Queries

log = logging.getLogger("recorder")


class ChatMessageHistory(BaseChatMessageHistory):
    """The messages of a recorded conversation, for `RunnableWithMessageHistory` and for code of your own.

    `history` is the `ChatHistoryCallback` that records the conversation, of this package or of `recorder`; it also
    stores what is added. If the model has it as a callback, each message is stored once, although both see it. `user`
    is the user to whom the conversation belongs; the default is that of `with history.user(...)`.

    `messages` are those of the newest branch. System messages are not among them: they belong to the chain, which sends
    them with each call. Reading waits until what was recorded before is committed, at most five seconds, and then
    raises `StoreError`. Adding raises as `ChatHistoryCallback.add_messages` does, and logs the error, because
    `RunnableWithMessageHistory` ignores it. On an event loop use the methods that begin with `a`.
    """

    def __init__(self, conversation_id: str, history: Any, *, user: str | None = None) -> None:
        super().__init__()
        self._memory = ConversationMemory(conversation_id, history, user)

    @property
    def messages(self) -> list[Any]:  # type: ignore[override]  # LangChain reads it, and does not set it
        """The messages of the memory, as LangChain's."""
        return self._memory.read(_messages)

    async def aget_messages(self) -> list[Any]:
        """`messages` on an event loop."""
        return await self._memory.aread(_messages)

    def add_messages(self, messages: Sequence[Any]) -> None:
        """Store messages below the newest one, except those that are recorded already."""
        try:
            added = messages_from(list(messages))
            self._memory.add(self._memory.read(_view), added)
        except Exception as error:
            self._log("Messages are not added", error)
            raise

    async def aadd_messages(self, messages: Sequence[Any]) -> None:
        """`add_messages` on an event loop."""
        try:
            added = messages_from(list(messages))
            self._memory.add(await self._memory.aread(_view), added)
        except Exception as error:
            self._log("Messages are not added", error)
            raise

    def clear(self) -> None:
        """Let the memory begin anew. What was recorded before stays stored, with a note below it."""
        if self._memory.read(_has_messages):
            self._memory.note(CLEARED)

    async def aclear(self) -> None:
        """`clear` on an event loop."""
        if await self._memory.aread(_has_messages):
            self._memory.note(CLEARED)

    def _log(self, problem: str, error: Exception) -> None:
        log.error("%s to conversation %r: %s", problem, self._memory.conversation_id, error)


def _view(view: View) -> Queries[View]:
    yield from ()
    return view


def _messages(view: View) -> Queries[list[Any]]:
    yield from ()
    return [to_langchain(message) for message in chat_messages(view.branch.messages)]


def _has_messages(view: View) -> Queries[bool]:
    yield from ()
    return bool(chat_messages(view.branch.messages))
