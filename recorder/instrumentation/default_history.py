"""The recorder of the process for applications that made none."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recorder.chat_history_callback import ChatHistoryCallback

_lock = threading.Lock()
_default: ChatHistoryCallback | None = None
#: Why it could not be opened. It is not tried again: every call would wait for the database.
_error: Exception | None = None


def default_history() -> ChatHistoryCallback:
    """The recorder, opened at the first call. Its database is the default one.

    Such a program names no conversations, so they are found by their history. Raises why the recorder could not be
    opened, every time the same exception.
    """
    global _default, _error
    from recorder.chat_history_callback import ChatHistoryCallback

    with _lock:
        if _error is not None:
            raise _error
        if _default is None or _default.recorder.closed:
            try:
                _default = ChatHistoryCallback(thread="history")
            except Exception as error:
                _error = error
                raise
        return _default


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock, for as long as it opened a database."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
