"""Counts of the rows that an export wrote or an import read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recorder.storage.rows import FrameRow, SegmentRow

#: Called with how much is done, and the total: tokens of an export, bytes of an import. The total may be None.
Progress = Callable[[int, int | None], None]

#: Type of a row -> the counter that it adds to. Segments and frames add the number of their items.
_COUNTED = {
    "ConversationRow": "conversations",
    "Producer": "producers",
    "MessageRow": "messages",
    "ContextMessageRow": "context_messages",
    "RunRow": "runs",
    "SegmentRow": "tokens",
    "FrameRow": "frames",
    "GapRow": "gaps",
    "AnnotationRow": "annotations",
}


@dataclass(slots=True)
class Counts:
    """Numbers of rows, tokens and frames."""

    #: Rows in the table `conversations`.
    conversations: int = 0
    #: Rows in the table `messages`.
    messages: int = 0
    #: Rows in the table `runs`.
    runs: int = 0
    #: Tokens in the rows of the table `segments`.
    tokens: int = 0
    #: Frames in the rows of the table `frames`.
    frames: int = 0
    #: Rows in the table `gaps`.
    gaps: int = 0
    #: Rows in the table `annotations`.
    annotations: int = 0
    #: Processes that recorded.
    producers: int = 0
    #: Rows in the table `context_messages`.
    context_messages: int = 0

    def add(self, row: Any) -> None:
        """Count a row."""
        name = _COUNTED[type(row).__name__]
        number = row.count if isinstance(row, (SegmentRow, FrameRow)) else 1
        setattr(self, name, getattr(self, name) + number)

    def any(self) -> bool:
        """Whether any counter is not 0."""
        return any(getattr(self, name) for name in self.__slots__)
