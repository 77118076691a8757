"""The recorder of the process for applications that made none."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recorder.chat_history_callback import ChatHistoryCallback

_lock = threading.Lock()
_default: ChatHistoryCallback | None = None


def default_history() -> ChatHistoryCallback:
    """The recorder, opened at the first call. Its database is the default one.

    Such a program names no conversations, so they are found by their history.
    """
    global _default
    from recorder.chat_history_callback import ChatHistoryCallback

    with _lock:
        if _default is None or _default.recorder.closed:
            _default = ChatHistoryCallback(thread="history")
        return _default
