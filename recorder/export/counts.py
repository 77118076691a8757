"""What was written or read, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from recorder.storage.rows import FrameRow, SegmentRow

T = TypeVar("T")

#: Told how much is done, and of how much: tokens of an export, bytes of an import; None for unknown.
Progress = Callable[[int, int | None], None]

#: What a row is counted as; segments and frames by what is in them.
_COUNTED = {
    "ConversationRow": "conversations",
    "Producer": "producers",
    "MessageRow": "messages",
    "RunRow": "runs",
    "SegmentRow": "tokens",
    "FrameRow": "frames",
    "GapRow": "gaps",
    "AnnotationRow": "annotations",
}


@dataclass(slots=True)
class Counts:
    """How many of each."""

    conversations: int = 0
    messages: int = 0
    runs: int = 0
    tokens: int = 0
    frames: int = 0
    #: Rows that say what is missing.
    gaps: int = 0
    annotations: int = 0
    #: Processes that recorded.
    producers: int = 0

    def add(self, row: Any) -> None:
        """One row more."""
        name = _COUNTED[type(row).__name__]
        number = row.count if isinstance(row, (SegmentRow, FrameRow)) else 1
        setattr(self, name, getattr(self, name) + number)

    def any(self) -> bool:
        """Whether there is anything."""
        return any(getattr(self, name) for name in self.__slots__)


def off_the_loop(work: Callable[[], T]) -> T:
    """The result of work that runs event loops of its own, where one runs already, as in a notebook, too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
