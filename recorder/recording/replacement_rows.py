"""Runs of which tokens were given up after two failures: what they get in place of them is stored later."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from recorder.recording.progress import Progress
from recorder.storage.rows import RunRows

log = logging.getLogger("recorder")

#: So many are kept; each holds a run's row, its gaps and its end.
MOST = 1_000


class Owed:
    """Rows to store, without tokens and messages, in the order in which they failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # With the number of the file that they belong to, among those that the recorder has written.
        self._rows: deque[tuple[int, RunRows]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, file: int, rows: Sequence[RunRows]) -> None:
        """Keep these; where there are too many some are forgotten."""
        self._rows.extend((file, each) for each in rows)
        while len(self._rows) > MOST:
            _, lost = self._rows.popleft()
            log.error("Run %s lacks tokens, and no gap can be stored for them", lost.start.run_id)

    async def store(self, file: int, commit: Callable[[RunRows], Awaitable[None]]) -> None:
        """Store those of this file, one after another; one that fails is tried again another time, after the others."""
        for _ in range(len(self._rows)):
            owed = self._rows.popleft()
            if owed[0] != file:
                continue  # this one has gaps for all that is in the one before
            try:
                await commit(owed[1])
            except Exception as error:  # as it failed before
                self._progress.broke(error)
                self._rows.append(owed)
                return
