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
    "RunRow": "runs",
    "SegmentRow": "tokens",
    "FrameRow": "frames",
    "GapRow": "gaps",
    "AnnotationRow": "annotations",
}


@dataclass(slots=True)
class Counts:
    """Numbers of rows, tokens and frames."""

    conversations: int = 0
    messages: int = 0
    runs: int = 0
    tokens: int = 0
    frames: int = 0
    #: Rows in the table `gaps`.
    gaps: int = 0
    annotations: int = 0
    #: Processes that recorded.
    producers: int = 0

    def add(self, row: Any) -> None:
        """Count a row."""
        name = _COUNTED[type(row).__name__]
        number = row.count if isinstance(row, (SegmentRow, FrameRow)) else 1
        setattr(self, name, getattr(self, name) + number)

    def any(self) -> bool:
        """Whether any counter is not 0."""
        return any(getattr(self, name) for name in self.__slots__)
