"""Commits batches to the store: tries again while the database fails, and isolates rows that can never be stored."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from recorder.core.clock import now
from recorder.core.deadline import Deadline, seconds
from recorder.core.ids import new_id
from recorder.recording.batch_in_flight import InFlightBatch, bytes_in
from recorder.recording.batch_size import BatchSize
from recorder.recording.buffer import DrainedBatch, OpenRun
from recorder.recording.failure_cause import FailureCause
from recorder.recording.kept_apart import KeptApart
from recorder.recording.listeners import Listeners
from recorder.recording.moved_file import begun_elsewhere
from recorder.recording.progress import Progress
from recorder.recording.repeated_run_ids import Attempts
from recorder.storage.batch import Addition, Batch, Part, RunRows
from recorder.storage.liveness import this_process
from recorder.storage.rows import Producer, RunStart
from recorder.storage.storable_values import bare_end
from recorder.storage.store_interface import ConversationTaken, Moved, RunIdTaken, Store

log = logging.getLogger("recorder")


class Committer:
    """Commits batches for the writer, and holds the runs that are stored and have not ended."""

    def __init__(
        self, store: Store, progress: Progress, deadline: Deadline, max_bytes: int, listeners: Listeners
    ) -> None:
        self._store = store
        self._progress = progress
        self._deadline = deadline
        self._listeners = listeners
        self.attempts = Attempts()
        self._kept_apart = KeptApart()
        #: How much one transaction stores.
        self.batch_size = BatchSize(max_bytes)
        #: This process, as it is stored.
        self.producer = Producer(new_id(), socket.gethostname(), os.getpid(), now(), now(), this_process())
        #: The runs that are stored and have no end yet, by id.
        self.streaming: dict[str, OpenRun] = {}
        # Names of errors that look like an outage and were caused by rows, with the time of the last one.
        self._blamed: dict[str, float] = {}
        #: Number of the database file, counted over the files that this recorder has written.
        self.file = 0

    async def heartbeat(self) -> None:
        """Store that this process is alive."""
        await self._append([])

    async def commit(self, in_flight: InFlightBatch, batch: list[Part]) -> None:
        """Store these parts, however often that fails. What can never be stored is left out and logged. When the time
        to close runs out, the parts are lost."""
        size = self.batch_size
        if size.is_reduced and bytes_in(batch) > size.now and await self._commit_halves(in_flight, batch):
            return None
        self._kept_apart.rename_known(batch)
        attempt, cause = 0, FailureCause(batch, self._stores_other_rows, self._blamed)
        while not self._deadline.is_over:
            began = seconds()
            try:
                await self._deadline.in_time(self._append(batch))
            except RunIdTaken as error:
                self.attempts.rename(batch, error.run_ids, in_flight.unsettled())
            except ConversationTaken as error:
                self._kept_apart.rename(batch, error.keys, in_flight.unsettled())
            except Moved as error:
                self._progress.note(error, "storing")
                await self.continue_in_new_file(in_flight, batch)
            except Exception as error:
                if self._deadline.blocked:
                    self._progress.note(error, "storing")
                    break
                failure = self._store.failure(error)
                if await cause.is_rows(failure, error, had_longest=size.is_patient):
                    return await self._isolate(in_flight, batch, error)
                self._progress.database_failed(error, "storing")
                if not await self._deadline.pause(attempt):
                    break
                if failure == "slow" and await self._commit_less(in_flight, batch, began):
                    return None
                attempt += 1
            else:
                self.batch_size.grow(began)
                in_flight.mark_stored(batch)
                return self._listeners.committed(batch)
        return in_flight.mark_lost(batch)

    def update_streaming(self, drained: DrainedBatch) -> None:
        """The batch is stored: note which of its runs have not ended."""
        for part in drained.runs:
            run, run_id = part.run, part.run.start.run_id
            if part.end is None:
                self.streaming[run_id] = run
            else:
                self.streaming.pop(run_id, None)
            if part.end is None or not run.sealed:  # a run that was ended for being idle may continue
                run.start = _without_request(run.start)

    async def continue_in_new_file(self, in_flight: InFlightBatch, batch: Sequence[Part]) -> None:
        """The database is another file than before: store the rows of the runs that began in the previous file."""
        self.file += 1
        # Parts of `batch` come last and win, because they may be reduced already.
        unsettled = {part.place: part for part in (*in_flight.unsettled(), *batch)}
        runs = {id(run): run for run in (*self.streaming.values(), *_unended(in_flight, unsettled.values()))}
        if moved := begun_elsewhere(runs.values(), [*unsettled.values()], self.file):
            await self.commit(in_flight, in_flight.add_rows(moved))

    async def _append(self, batch: Sequence[Part]) -> None:
        self.producer = replace(self.producer, heartbeat_at=now())
        patience = self.batch_size.patience
        await self._store.append(Batch(self.producer, *_by_kind(batch), self.streaming, patience=patience))

    async def _commit_halves(self, in_flight: InFlightBatch, batch: list[Part]) -> bool:
        """Commit one half after the other; False for a single row, which cannot be split."""
        halves = in_flight.split(batch)
        for half in halves if len(halves) > 1 else ():
            await self.commit(in_flight, half)
        return len(halves) > 1

    async def _commit_less(self, in_flight: InFlightBatch, batch: list[Part], began: float) -> bool:
        """The batch took too long: commit less at once, or give one row more time."""
        self.batch_size.halve(bytes_in(batch), began)
        is_split = await self._commit_halves(in_flight, batch)
        if not is_split:
            self.batch_size.wait_longer()
        return is_split

    async def _stores_other_rows(self, size: int) -> bool:
        """Whether the database accepts other rows of so many bytes now. A constraint or trigger of the user may refuse
        those as well; it is then a rule about rows, too."""
        try:
            trial = Batch(
                self.producer,
                [],
                (),
                self.streaming,
                trial=True,
                trial_bytes=size,
                patience=self.batch_size.patience,
            )
            await self._deadline.in_time(self._store.append(trial))
        except Exception as error:
            return self._store.failure(error) == "poison"
        return True

    async def _isolate(self, in_flight: InFlightBatch, batch: list[Part], error: Exception) -> None:
        """Split the batch until the part that cannot be stored is found, and store the rest."""
        if len(batch) > 1:
            await self._commit_halves(in_flight, batch)
            return None
        error_text = self._progress.note(error, "storing")
        if isinstance(part := batch[0], Addition):
            return _leave_out(in_flight, part, error_text)
        return await self._commit_reduced(in_flight, part, error_text)

    async def _commit_reduced(self, in_flight: InFlightBatch, rows: RunRows, error_text: str) -> None:
        """Store a run without what can never be stored: first without its messages, then without the fields of its end
        except the status, and last with a gap in place of its tokens."""
        run_id = rows.start.run_id
        if rows.messages or not rows.threaded:
            log.error("Run %s: its messages cannot be stored and are left out: %s", run_id, error_text)
            return await self.commit(in_flight, [replace(rows, messages=[], threaded=True)])
        if rows.seal is not None and rows.seal.end != (bare := bare_end(rows.seal.end)):
            log.error(
                "Run %s: the fields of its end cannot be stored, only its status is: %s", run_id, error_text
            )
            return await self.commit(in_flight, [replace(rows, seal=replace(rows.seal, end=bare))])
        if not rows.segments and not rows.frames:
            log.error("Run %s cannot be stored at all: %s", run_id, error_text)
            return in_flight.mark_left_out([rows])
        log.error("Run %s: %d tokens cannot be stored and are left out: %s", run_id, rows.tokens, error_text)
        return await self.commit(in_flight, [in_flight.quarantine(rows, error_text)])


def _leave_out(in_flight: InFlightBatch, addition: Addition, error_text: str) -> None:
    log.error(
        "%d messages or annotations added to conversation %r cannot be stored: %s",
        addition.count, addition.conversation_id, error_text,
    )  # fmt: skip
    in_flight.mark_left_out([addition])


def _unended(in_flight: InFlightBatch, unsettled: Iterable[Part]) -> Iterator[OpenRun]:
    """The runs of the batch that have not ended, or whose end is not stored yet."""
    ids = {part.start.run_id for part in unsettled if isinstance(part, RunRows)}
    for drained in in_flight.drained.runs:
        if drained.end is None or drained.run.start.run_id in ids:
            yield drained.run


def _without_request(start: RunStart) -> RunStart:
    """A copy with what a stored open run needs for its end. The store may hold the original, so that stays as it is."""
    if not (start.messages or start.path or start.request or start.metadata):
        return start
    return replace(
        start, messages=(), after_instructions=None, path=(), contents=(), request=None, metadata=None
    )


def _by_kind(batch: Sequence[Part]) -> tuple[list[RunRows], list[Addition]]:
    return [part for part in batch if isinstance(part, RunRows)], [
        part for part in batch if isinstance(part, Addition)
    ]
