"""The recorder of the process for applications that made none."""

from __future__ import annotations

import os
import threading
from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recorder.chat_history_callback import ChatHistoryCallback

#: Held while a thread opens the database. Threads with an event loop never wait for it.
_opening = threading.Lock()
#: Held for a moment, while the recorder is chosen.
_choosing = threading.Lock()
_default: ChatHistoryCallback | None = None
#: Why it could not be opened. It is not tried again: every call would wait for the database.
_error: Exception | None = None


def default_history() -> ChatHistoryCallback:
    """The recorder, opened at the first call. Its database is the default one.

    Such a program names no conversations, so they are found by their history. Raises why the recorder could not be
    opened, every time the same exception.
    """
    if (found := _open_one()) is not None:
        return found
    if _get_running_loop() is not None:  # there the constructor does not wait for the database
        return _opened()
    with _opening:
        return _open_one() or _opened()


def _open_one() -> ChatHistoryCallback | None:
    if _error is not None:
        raise _error
    return _default if _default is not None and not _default.recorder.closed else None


def _opened() -> ChatHistoryCallback:
    """A new recorder, or the one that another thread has opened meanwhile."""
    global _default, _error
    from recorder.chat_history_callback import ChatHistoryCallback

    try:
        made = ChatHistoryCallback(thread="history")
    except Exception as error:
        _error = error
        raise
    with _choosing:
        chosen = _default = _open_one() or made
    if chosen is not made:
        made.close(timeout=0)  # nothing was recorded with it
    return chosen


def _renew_locks() -> None:
    """In a forked child: another thread of the parent may have held them, for as long as it opened a database."""
    global _opening, _choosing
    _opening, _choosing = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
