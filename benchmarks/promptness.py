"""When tokens were accepted and when they were committed, seen at the store."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recorder.storage.batch import Batch
    from recorder.storage.store import SqlStore


class Commits:
    """Records the time at which each batch is committed. It must be created before the recorder."""

    def __init__(self) -> None:
        from recorder.storage.store import SqlStore

        self._batches: list[tuple[float, Batch]] = []
        append, batches = SqlStore.append, self._batches

        async def timed(self: SqlStore, batch: Batch) -> None:
            await append(self, batch)
            batches.append((time.time(), batch))

        SqlStore.append = timed  # type: ignore[method-assign]

    def late_ms(self) -> list[float]:
        """Milliseconds from each token's arrival, on its run's clock, to its COMMIT."""
        return [
            (committed - rows.start.started_at.timestamp()) * 1e3 - token[0] / 1e3
            for committed, batch in self._batches
            for rows in batch.runs
            for segment in rows.segments
            for token in json.loads(segment.deltas)
        ]
