"""Replacement rows of runs whose tokens were given up after two failures; they are stored later."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from recorder.recording.progress import Progress
from recorder.storage.batch import RunRows

log = logging.getLogger("recorder")

#: The most replacements that are held in memory. Each has a run's row, its gaps and its end.
MOST = 1_000


class ReplacementRows:
    """Rows without tokens and messages that still have to be stored, in the order in which they failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # Each with the number of the database file that it belongs to.
        self._rows: deque[tuple[int, RunRows]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, file: int, rows: Sequence[RunRows]) -> None:
        """Add rows for this file. Above the limit the oldest are removed and logged."""
        self._rows.extend((file, each) for each in rows)
        while len(self._rows) > MOST:
            _, lost = self._rows.popleft()
            log.error("Run %s lacks tokens, and no gap can be stored for them", lost.start.run_id)

    async def store(self, file: int, commit: Callable[[RunRows], Awaitable[None]]) -> None:
        """Store the rows of this file one by one. If one fails, it is moved to the end, and the next call goes on."""
        for _ in range(len(self._rows)):
            replacement = self._rows.popleft()
            if replacement[0] != file:
                continue  # this file has gaps for everything in an earlier file
            try:
                await commit(replacement[1])
            except Exception as error:  # it failed before, too
                self._progress.batch_failed(error)
                self._rows.append(replacement)
                return
