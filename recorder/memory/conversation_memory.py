"""A recorded conversation as the memory of a framework: what is read, what is added, and how it is emptied.

The frameworks' classes stand beside a handler or an attached client that records the same conversation. So what they
add is often recorded already, maybe not committed yet. Each read waits for the commit first, and what the end of the
conversation holds already is not added again.

The log is only appended to. Emptying the memory, or removing its last item, appends a note. A reader applies the notes
in their order; the messages before them stay stored.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from recorder.core.ids import check_conversation_id
from recorder.memory.branch_reader import BranchReader, View
from recorder.messages import BaseMessage, SystemMessage
from recorder.messages.identity import content_hash, path_ids
from recorder.recording.redacting_recorder import RedactingRecorder
from recorder.replay.queries import Queries
from recorder.storage.newest_branch import BranchMessage, BranchMessages

log = logging.getLogger("recorder")

T = TypeVar("T")

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
#: The key is a `ChatHistoryCallback`.
_states: WeakKeyDictionary[Any, SharedState] = WeakKeyDictionary()


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _state_of(history: Any) -> SharedState:
    with _lock:
        if (state := _states.get(history)) is None:
            state = _states[history] = SharedState()
        return state


class ConversationMemory:
    """A recorded conversation that a framework reads and adds to.

    Raises `ConfigError` for an invalid id, and for a `history` that is no `ChatHistoryCallback`.
    """

    def __init__(self, conversation_id: str, history: Any, user: str | None = None) -> None:
        self._reader = BranchReader(history)
        self.conversation_id = check_conversation_id(conversation_id)
        self.history = history
        self._user = user
        self._state = _state_of(history)
        #: Id of a reply -> what the framework made of it; shared by all memories over this recorder.
        self.replies = self._state.replies

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, queries: Callable[[View], Queries[T]]) -> T:
        """What `queries` makes of the conversation; blocks. Raises `StoreError` if the database does not answer."""
        return self._reader.read(self.conversation_id, self._user, queries)

    async def aread(self, queries: Callable[[View], Queries[T]]) -> T:
        """`read` on an event loop."""
        return await self._reader.aread(self.conversation_id, self._user, queries)

    # -- adding ---------------------------------------------------------------------------------------------------

    def add(self, view: View, messages: Sequence[BaseMessage]) -> None:
        """Store those of the messages that are not recorded yet. Raises as `add_messages` does."""
        branch, tail = view.branch, self._unaccounted(view.branch)
        stored = self._as_stored(messages)
        place, count = recorded_count([each.message for each in tail], stored)
        if place < len(tail) and not view.is_ours:  # the same words, said again in another process
            place = count = 0
        if view.awaits_answer and _is_answer(messages, count) and place in (0, len(tail)):
            # LangChain calls the memory before the handler that ends the run.
            place, count = len(tail), count + 1
            self._account(branch, stored[count - 1 : count])
        elif place:
            self._state.accounted.put(branch.conversation_id, tail[place - 1].id)
        if new := messages[count:]:
            with self._as_user():
                self.history.add_messages(list(new), conversation_id=self.conversation_id)
            self._account(branch, stored[count:])

    def _as_stored(self, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """The messages as the recorder stores them: what is recorded already is redacted."""
        recorder = self.history.recorder
        return recorder.redacted(messages) if isinstance(recorder, RedactingRecorder) else messages

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


def chat_messages(branch: Sequence[BranchMessage]) -> list[BaseMessage]:
    """The messages of the memory. Instructions are not among them: they belong to what sends them with each call."""

    def items_of(each: BranchMessage) -> list[BaseMessage]:
        return [] if each.message.role == "system" else [each.message]

    return remembered(branch, items_of)


def answered_messages(view: View) -> Queries[list[BaseMessage]]:
    """The messages up to the last answer. A question whose run failed or was cancelled is left out, as in LangChain."""
    yield from ()
    found = chat_messages(view.branch.messages)
    if view.branch.unanswered_run_id is not None:
        while found and found[-1].role != "assistant":
            found.pop()
    return found
