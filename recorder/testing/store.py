"""The store's seam in memory, for tests: `ChatHistoryCallback(store=MemoryStore())`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from recorder.dialects import Failure
from recorder.records import (
    Batch,
    FrameRow,
    GapRow,
    Known,
    MessageRow,
    Producer,
    RunSeal,
    RunStart,
    SegmentRow,
)
from recorder.store import Asked, Conflict, newest_of


class MemoryStore:
    """Keeps what is appended in dictionaries by key. `failures` are raised first, one an `append`."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.batches: list[Batch] = []
        self.starts: dict[str, RunStart] = {}
        self.seals: dict[str, RunSeal] = {}
        self.messages: dict[tuple[str, str], MessageRow] = {}
        self.segments: dict[tuple[str, int], SegmentRow] = {}
        self.frames: dict[tuple[str, int], FrameRow] = {}
        self.gaps: dict[tuple[str, int], GapRow] = {}

    async def open(self) -> None:
        """Nothing to open."""

    async def known(self, asked: Asked) -> dict[str, Known]:
        """What is there of each conversation."""
        return {
            conversation_id: self._known(conversation_id, paths) for conversation_id, paths in asked.items()
        }

    async def append(self, batch: Batch) -> None:
        """Keep the rows whose key is new; raise `Conflict` for another content under an old one."""
        if self.failures:
            raise self.failures.pop(0)
        for rows in batch.runs:
            for row in rows.segments:
                if self.segments.setdefault((row.run_id, row.seq), row) != row:
                    raise Conflict(f"Run {row.run_id} has other tokens stored from {row.seq} on")
        for part in batch.parts:
            for message in part.messages:
                self.messages.setdefault((message.conversation_id, message.id), message)
        for rows in batch.runs:
            self.starts.setdefault(rows.start.run_id, rows.start)
            self.frames |= {(row.run_id, row.seq): row for row in rows.frames}
            self.gaps |= {(row.run_id, row.seq): row for row in rows.gaps}
            if rows.seal is not None:
                self.seals[rows.start.run_id] = rows.seal
        self.batches.append(batch)

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """Nobody else records here."""
        return 0

    async def close(self) -> None:
        """Nothing to close."""

    def failure(self, error: BaseException) -> Failure:
        """`ConnectionError` is transient, all else poison."""
        return "transient" if isinstance(error, (ConnectionError, TimeoutError)) else "poison"

    def _known(self, conversation_id: str, paths: Sequence[Sequence[str]]) -> Known:
        here = [row for (owner, _), row in self.messages.items() if owner == conversation_id]
        ids = {id for path in paths for id in path}
        positions = {row.id: row.position for row in here if row.id in ids}
        newest = newest_of(here)
        return Known(positions, newest if any(map(positions.keys().isdisjoint, paths)) else None)
