"""A recorded conversation as the memory of a framework: what is read, what is added, and how it is emptied.

The frameworks' classes stand beside a handler or an attached client that records the same conversation. So what they
add is often recorded already, maybe not committed yet. Each read waits for the commit first, and what the end of the
conversation holds already is not added again.

The log is only appended to. Emptying the memory, or removing its last item, appends a note. A reader applies the notes
in their order; the messages before them stay stored.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.ids import check_conversation_id
from recorder.errors import Closed, ConfigError, StoreError
from recorder.messages import BaseMessage, SystemMessage
from recorder.messages.identity import content_hash, path_ids
from recorder.replay import Replay
from recorder.replay.playback import QueryStep
from recorder.replay.queries import Queries, run_queries, run_queries_async
from recorder.storage.reader import BranchMessage, BranchMessages, DatabaseReader

log = logging.getLogger("recorder")

T = TypeVar("T")

#: The longest that a read waits until what was recorded before is committed (seconds).
FLUSH_TIMEOUT = 5.0
#: The key of `additional_kwargs` that makes a message a note, and its values.
NOTE, CLEARED, POPPED = "recorder_memory", "cleared", "popped"
_NOTES = {
    CLEARED: "The memory was cleared. It begins anew from here.",
    POPPED: "The last item of the memory was removed. It goes on from the item before.",
}
#: So many are remembered of each recorder.
_CONVERSATIONS, _REPLIES = 10_000, 2_000


class Remembered(OrderedDict[str, Any]):
    """A dict that forgets what was put into it first."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def put(self, key: str, value: Any) -> None:
        """Set a value, as the newest one."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > self._limit:
            self.popitem(last=False)


class SharedState:
    """What all memories over one recorder share. It has no reference to the recorder."""

    def __init__(self) -> None:
        #: Conversation -> the id of its last message that a memory has added, or was given and found recorded.
        self.accounted = Remembered(_CONVERSATIONS)
        #: Id of a reply -> what a framework made of it. A turn reads only the newest replies again.
        self.replies = Remembered(_REPLIES)


_lock = threading.Lock()
_states: WeakKeyDictionary[ChatHistoryCallback, SharedState] = WeakKeyDictionary()


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _state_of(history: ChatHistoryCallback) -> SharedState:
    with _lock:
        if (state := _states.get(history)) is None:
            state = _states[history] = SharedState()
        return state


class View(NamedTuple):
    """The newest branch of the conversation as it is stored."""

    branch: BranchMessages
    #: The last run was recorded by the recorder of this memory.
    is_ours: bool
    #: The last run is such a run, and its answer is not recorded yet.
    awaits_answer: bool


class ConversationMemory:
    """A recorded conversation that a framework reads and adds to.

    Raises `ConfigError` for an invalid id, and for a `history` that is no `ChatHistoryCallback`.
    """

    def __init__(self, conversation_id: str, history: Any, user: str | None = None) -> None:
        if not isinstance(history, ChatHistoryCallback):
            raise ConfigError(
                f"history is of type {type(history).__name__}; pass the ChatHistoryCallback that records the "
                "conversation"
            )
        self.conversation_id = check_conversation_id(conversation_id)
        self.history = history
        self._user = user
        # Open until the memory is collected. All that are open at the same time share a connection.
        self._replay = Replay(history.recorder.url)
        self._state = _state_of(history)
        #: Id of a reply -> what the framework made of it; shared by all memories over this recorder.
        self.replies = self._state.replies

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, queries: Callable[[View], Queries[T]]) -> T:
        """What `queries` makes of the conversation; blocks. Raises `StoreError` if the database does not answer."""
        try:
            self.history.flush().wait(FLUSH_TIMEOUT)
        except Exception as error:
            self._check_flush(error)
        return run_queries(self._replay.reader, self._queries(queries))

    async def aread(self, queries: Callable[[View], Queries[T]]) -> T:
        """`read` on an event loop."""
        try:
            await asyncio.wait_for(self.history.flush(), FLUSH_TIMEOUT)
        except Exception as error:
            self._check_flush(error)
        return await run_queries_async(self._replay.reader, self._queries(queries))

    def _check_flush(self, error: Exception) -> None:
        """Whether reading goes on after a flush that failed."""
        if isinstance(error, Closed):
            return  # everything is stored
        if isinstance(error, StoreError):
            log.warning("Conversation %r may lack messages: %s", self.conversation_id, error)
            return
        if not isinstance(error, TimeoutError):
            raise error
        reason = self.history.stats().last_error or "the database is slow"
        raise StoreError(
            f"Conversation {self.conversation_id!r} cannot be read: what was recorded before is not committed after "
            f"{FLUSH_TIMEOUT:g} seconds ({reason}); try again when the database answers"
        ) from error

    def _queries(self, queries: Callable[[View], Queries[T]]) -> Queries[T]:
        user = self._user or self.history._naming.names.user_id
        branch = yield QueryStep(DatabaseReader.branch_messages, self.conversation_id, user)
        last = branch.unanswered_run_id or next(
            (each.run_id for each in branch.messages[::-1] if each.run_id), None
        )
        run = (yield QueryStep(DatabaseReader.run, last)) if last is not None else None
        is_ours = run is not None and run.producer_id == self.history.recorder.producer_id
        awaits_answer = run is not None and is_ours and run.is_open and branch.unanswered_run_id is not None
        return (yield from queries(View(branch, is_ours, awaits_answer)))

    # -- adding ---------------------------------------------------------------------------------------------------

    def add(self, view: View, messages: Sequence[BaseMessage]) -> None:
        """Store those of the messages that are not recorded yet. Raises as `add_messages` does."""
        branch, tail = view.branch, self._unaccounted(view.branch)
        place, count = recorded_count([each.message for each in tail], messages)
        if place < len(tail) and not view.is_ours:  # the same words, said again in another process
            place = count = 0
        if view.awaits_answer and _is_answer(messages, count) and place in (0, len(tail)):
            # LangChain calls the memory before the handler that ends the run.
            place, count = len(tail), count + 1
            self._account(branch, messages[count - 1 : count])
        elif place:
            self._state.accounted.put(branch.conversation_id, tail[place - 1].id)
        self._store(branch, messages[count:])

    def _store(self, branch: BranchMessages, messages: Sequence[BaseMessage]) -> None:
        if not messages:
            return
        with self._as_user():
            self.history.add_messages(list(messages), conversation_id=self.conversation_id)
        self._account(branch, messages)

    def _account(self, branch: BranchMessages, messages: Sequence[BaseMessage]) -> None:
        """Remember these messages, which are about to be stored below the branch."""
        end = branch.messages[-1].id if branch.messages else None
        self._state.accounted.put(branch.conversation_id, path_ids(branch.conversation_id, messages, end)[-1])

    def note(self, kind: str) -> None:
        """Append a note to the conversation. Raises as `add_messages` does."""
        message = SystemMessage(_NOTES[kind], additional_kwargs={NOTE: kind})
        with self._as_user():
            self.history.add_messages(message, conversation_id=self.conversation_id)

    def _as_user(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._user is None else self.history.user(self._user)

    def _unaccounted(self, branch: BranchMessages) -> Sequence[BranchMessage]:
        """The newest exchange, as far as a run has recorded it and no memory has added it."""
        found = after(branch.messages, self._state.accounted.get(branch.conversation_id))
        place = max((n for n, each in enumerate(found) if each.message.role == "user"), default=0)
        exchange = found[place:]
        is_of_a_run = branch.unanswered_run_id is not None or any(each.run_id for each in exchange)
        return exchange if is_of_a_run else ()


def after(messages: Sequence[BranchMessage], accounted: str | None) -> Sequence[BranchMessage]:
    """The messages after the last note and after the message with this id."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].id == accounted or note_in(messages[place].message) is not None:
            return messages[place + 1 :]
    return messages


def recorded_count(tail: Sequence[BaseMessage], new: Sequence[BaseMessage]) -> tuple[int, int]:
    """How many messages of the tail agree with new ones, up to the last that agrees, and how many new ones that covers.

    Before the last new message that agrees, others may differ: the model was sent the question in other words.
    """
    known = [content_hash(message) for message in tail]
    place = count = 0
    for number, message in enumerate(new, 1):
        key = content_hash(message)
        if key in known[place:]:
            place, count = known.index(key, place) + 1, number
    return place, count


def _is_answer(messages: Sequence[BaseMessage], place: int) -> bool:
    return place < len(messages) and messages[place].role == "assistant"


def note_in(message: BaseMessage) -> str | None:
    """The kind of a note; None for any other message."""
    kind = message.additional_kwargs.get(NOTE)
    return kind if isinstance(message, SystemMessage) and kind in _NOTES else None


def remembered(
    messages: Sequence[BranchMessage], items_of: Callable[[BranchMessage], Sequence[T]]
) -> list[T]:
    """The items of the messages after the notes are applied; `items_of` makes the items of one message."""
    found: list[T] = []
    for each in messages:
        kind = note_in(each.message)
        if kind == CLEARED:
            found.clear()
        elif kind == POPPED:
            del found[-1:]
        else:
            found += items_of(each)
    return found
