"""What was written or read, counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recorder.storage.rows import FrameRow, SegmentRow

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
