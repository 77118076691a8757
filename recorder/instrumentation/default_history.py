"""The recorder of the process for applications that made none."""

from __future__ import annotations

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
