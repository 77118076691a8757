"""Reads the newest branch of a conversation, with all that its recorder has accepted before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from recorder.errors import Closed, ConfigError, StoreError
from recorder.recording.recorder import Recorder
from recorder.replay import Replay
from recorder.replay.playback import QueryStep
from recorder.replay.queries import Queries, run_queries, run_queries_async
from recorder.storage.newest_branch import BranchMessage, BranchMessages
from recorder.storage.reader import DatabaseReader

log = logging.getLogger("recorder")

T = TypeVar("T")

#: The longest that a read waits until what was recorded before is committed (seconds).
FLUSH_TIMEOUT = 5.0


class View(NamedTuple):
    """The newest branch of the conversation as it is stored."""

    branch: BranchMessages
    #: The last run was recorded by the recorder of this memory.
    is_ours: bool
    #: The last run is such a run, and its answer is not recorded yet.
    awaits_answer: bool


class LastMessages(NamedTuple):
    """So many of the last messages are read. If these do not suffice, all are."""

    limit: int
    suffices: Callable[[Sequence[BranchMessage]], bool]


class BranchReader:
    """Reads conversations that a `ChatHistoryCallback` records. Raises `ConfigError` for another `history`."""

    def __init__(self, history: Any) -> None:
        if not isinstance(getattr(history, "recorder", None), Recorder):
            raise ConfigError(
                f"history is of type {type(history).__name__}; pass the ChatHistoryCallback that records the "
                "conversation"
            )
        if history.stores_elsewhere:
            raise ConfigError(
                "The recorder has a store of its own, which has no URL to be read at; pass a URL to it"
            )
        self.history = history
        # Open until the reader is collected. All that are open at the same time share a connection.
        self._replay = Replay(history.recorder.url)

    def read(
        self,
        conversation_id: str,
        user: str | None,
        queries: Callable[[View], Queries[T]],
        tail: LastMessages | None = None,
    ) -> T:
        """What `queries` makes of the conversation; blocks. Raises `StoreError` if the database does not answer."""
        try:
            self.history.flush().wait(FLUSH_TIMEOUT)
        except Exception as error:
            self._check_flush(conversation_id, error)
        return run_queries(self._replay.reader, self._queries(conversation_id, user, queries, tail))

    async def aread(
        self,
        conversation_id: str,
        user: str | None,
        queries: Callable[[View], Queries[T]],
        tail: LastMessages | None = None,
    ) -> T:
        """`read` on an event loop."""
        try:
            await asyncio.wait_for(self.history.flush(), FLUSH_TIMEOUT)
        except Exception as error:
            self._check_flush(conversation_id, error)
        return await run_queries_async(
            self._replay.reader, self._queries(conversation_id, user, queries, tail)
        )

    def _check_flush(self, conversation_id: str, error: Exception) -> None:
        """Whether reading goes on after a flush that failed."""
        if isinstance(error, Closed):
            return  # everything is stored
        if isinstance(error, StoreError):
            log.warning("Conversation %r may lack messages: %s", conversation_id, error)
            return
        if not isinstance(error, TimeoutError):
            raise error
        reason = self.history.stats().last_error or "the database is slow"
        raise StoreError(
            f"Conversation {conversation_id!r} cannot be read: what was recorded before is not committed after "
            f"{FLUSH_TIMEOUT:g} seconds ({reason}); try again when the database answers"
        ) from error

    def _queries(
        self,
        conversation_id: str,
        user: str | None,
        queries: Callable[[View], Queries[T]],
        tail: LastMessages | None,
    ) -> Queries[T]:
        user = user or self.history.names.user_id
        limit = tail.limit if tail is not None else None
        branch = yield QueryStep(DatabaseReader.branch_messages, conversation_id, user, limit)
        if tail is not None and len(branch.messages) >= tail.limit and not tail.suffices(branch.messages):
            branch = yield QueryStep(DatabaseReader.branch_messages, conversation_id, user)
        last = branch.unanswered_run_id or next(
            (each.run_id for each in branch.messages[::-1] if each.run_id), None
        )
        run = (yield QueryStep(DatabaseReader.run, last)) if last is not None else None
        is_ours = run is not None and run.producer_id == self.history.recorder.producer_id
        awaits_answer = run is not None and is_ours and run.is_open and branch.unanswered_run_id is not None
        return (yield from queries(View(branch, is_ours, awaits_answer)))
