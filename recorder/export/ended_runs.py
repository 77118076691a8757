"""Which runs of a database have ended: their status, or the heartbeat of their process, says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recorder.config import INTERRUPTED_AFTER
from recorder.core.clock import now
from recorder.export.row_reader import RowReader, RunKey
from recorder.storage.liveness import is_dead
from recorder.storage.rows import INTERRUPTED, STREAMING, Producer, RunRow


class EndedRuns:
    """Reads the runs that have ended, and notes the ids of those that have not."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        #: Ids of the runs that still stream.
        self.left_out: list[str] = []

    def ended(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Those that have ended; the others are noted."""
        over = {key.id for key in keys if self._is_over(key)}
        self.left_out += [key.id for key in keys if key.id not in over]
        return [key for key in keys if key.id in over]

    def read(self, keys: Sequence[RunKey]) -> Iterator[RunRow]:
        """The rows of these runs. One whose process is dead has the end that the next recorder will store."""
        known = {key.id: key for key in keys}
        for run in self._reader.runs(list(known)):
            if run.status == known[run.id].status:
                yield self._with_end(run)
            else:  # its process was alive after all, and has sealed the run meanwhile
                self.left_out.append(run.id)

    def producer(self, id: str | None) -> Producer | None:
        """The process that recorded a run; None if it is not known."""
        return None if id is None else self._reader.producer(id)

    def _is_over(self, key: RunKey) -> bool:
        if key.status != STREAMING:
            return True
        producer = self.producer(key.producer_id)
        return producer is not None and is_dead(producer, now(), INTERRUPTED_AFTER)

    def _with_end(self, run: RunRow) -> RunRow:
        producer = self.producer(run.producer_id) if run.status == STREAMING else None
        if producer is None:
            return run
        return run._replace(status=INTERRUPTED, ended_at=producer.heartbeat_at)
