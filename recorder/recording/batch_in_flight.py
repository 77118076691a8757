"""The batch in flight: what the writer has drained and is storing, and what becomes of each part of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from recorder.core.escaping import escape
from recorder.errors import StoreError
from recorder.recording.buffer import DrainedBatch
from recorder.recording.flushes import Flushes
from recorder.recording.progress import Progress, describe_loss
from recorder.recording.queue import RecordingQueue
from recorder.recording.serialize import without_tokens
from recorder.recording.split_batch import halved
from recorder.storage.batch import Addition, Part, RunRows
from recorder.storage.rows import GapRow
from recorder.storage.storable_values import bare_end
from recorder.wire.usage import ESTIMATED_USAGE

log = logging.getLogger("recorder")


class InFlightBatch:
    """Settles its parts one after another: each is stored, lost or left out. Whatever fails in between, each part is
    counted once, and its bytes are released to the queue."""

    def __init__(
        self, drained: DrainedBatch, queue: RecordingQueue, flushes: Flushes, progress: Progress
    ) -> None:
        self.drained = drained
        #: What to store of it; empty until it is serialized.
        self.parts: list[Part] = []
        #: How often storing it failed for a reason other than the database.
        self.failures = 0
        self._queue = queue
        self._flushes = flushes
        self._progress = progress
        # Places of the parts that are settled, and of those that lost their tokens.
        self._settled: set[int] = set()
        self._emptied: set[int] = set()
        self._settled_tokens_before = progress.settled_tokens

    def set_rows(self, runs: Sequence[RunRows]) -> list[Part]:
        """Set the serialized rows. Tokens that could not be serialized count as quarantined. Returns all parts."""
        parts: list[Part] = [*runs, *self.drained.additions]
        for place, part in enumerate(parts):
            part.place = place
        unserialized = sum(rows.unserialized for rows in runs)
        self.parts = parts
        self._progress.quarantined += unserialized
        return parts

    def set_rows_without_tokens(self, file: int) -> list[Part]:
        """Set rows, messages and ends, with gaps in place of tokens: the batch could not be serialized."""
        runs = [without_tokens(drained, file) for drained in self.drained.runs]
        for rows in runs:  # some may have been serialized before the failure, but none was stored
            rows.opens = rows.start.placement.position < 0
        return self.set_rows(runs)

    def add_rows(self, runs: Sequence[RunRows]) -> list[Part]:
        """Add rows that hold no bytes of the queue. Returns these parts."""
        parts: list[Part] = [*runs]
        for place, part in enumerate(parts, len(self.parts)):
            part.place = place
        self.parts = [*self.parts, *parts]
        return parts

    def split(self, batch: Sequence[Part]) -> list[list[Part]]:
        """Two halves of these parts; a single part that has only one row stays whole."""
        if middle := len(batch) // 2:
            return [[*batch[:middle]], [*batch[middle:]]]
        halves = halved(batch[0]) if batch else None
        if halves is None:
            return [[*batch]]
        first, second = halves
        second.place = len(self.parts)
        self.parts = [*self.parts[: first.place], first, *self.parts[first.place + 1 :], second]
        return [[first], [second]]

    def unsettled(self) -> list[Part]:
        """The parts that are neither stored nor lost nor left out."""
        return [part for part in self.parts if part.place not in self._settled]

    def mark_stored(self, batch: Sequence[Part]) -> None:
        """One transaction has stored these parts."""
        self._progress.estimated += estimates_in(batch)
        self._settle(batch, commits=1, committed=tokens_in(batch), messages=messages_in(batch))
        self._progress.database_answered()

    def mark_lost(self, batch: Sequence[Part]) -> None:
        """These parts will not be stored, because the time to close has run out."""
        self._settle(batch, lost=tokens_in(batch), lost_messages=messages_in(batch))
        self._report_loss()

    def mark_left_out(self, batch: Sequence[Part]) -> None:
        """These parts cannot be stored; the caller has counted and logged it."""
        self._settle(batch)

    def mark_all_lost(self) -> None:
        """Nothing of the batch will be stored: the writer ends before it began."""
        self._progress.lost += self._tokens()
        self._progress.lost_messages += messages_in(self.drained.additions)
        self._queue.release(self.drained.bytes)
        self._report_loss()

    def give_up(self) -> None:
        """Count what is not settled as quarantined, and let a flush raise."""
        tokens = self._tokens() - (self._progress.settled_tokens - self._settled_tokens_before)
        messages = messages_in(self.unsettled() if self.parts else self.drained.additions)
        self._queue.release(self.drained.bytes - self.drained.released, self.drained)
        if tokens or messages:
            self._progress.quarantined += tokens
            self._progress.lost_messages += messages
            loss = f"{describe_loss(tokens, messages)} not stored ({self._progress.last_error}); recording goes on"
            self._flushes.fail(self.drained.queue_offset, StoreError(loss))
        self._flushes.settle(self.drained.queue_offset)

    def replacement_rows(self, file: int) -> list[RunRows]:
        """Rows and ends of the unsettled runs, with gaps in place of tokens."""
        if not self.parts:
            self.set_rows_without_tokens(file)
        reason = str(self._progress.last_error)
        runs = [part for part in self.unsettled() if isinstance(part, RunRows)]
        return [_bare(self._without_tokens(rows, reason)) for rows in runs]

    def quarantine(self, rows: RunRows, reason: str) -> RunRows:
        """The rows with gaps in place of their tokens, which cannot be stored and count as quarantined."""
        if rows.place not in self._emptied:
            self._progress.quarantined += rows.tokens
        return self._without_tokens(rows, reason)

    def _without_tokens(self, rows: RunRows, reason: str) -> RunRows:
        """From now on the run gets no hash of its tokens and frames."""
        seal, lost = rows.seal, sum(row.count for row in rows.segments)
        if rows.place not in self._emptied:
            self._emptied.add(rows.place)
            self._subtract(rows, lost)
        if seal is not None:
            seal = replace(seal, token_count=max(0, seal.token_count - lost), sha256=None, frames_sha256=None)
        stored_reason = escape(f"quarantined: {reason}"[:500])
        gaps = [*rows.gaps, *(GapRow(row.run_id, row.seq, row.count, stored_reason) for row in rows.segments)]
        return replace(rows, segments=[], frames=(), gaps=gaps, tokens=0, seal=seal)

    def _subtract(self, rows: RunRows, tokens: int) -> None:
        for drained in self.drained.runs:
            if drained.run.start.run_id == rows.start.run_id and drained.run.totals is not None:
                drained.run.totals.lose_tokens(tokens)
        for other in self.unsettled():  # if the run was split, its end may be in another part
            if isinstance(other, RunRows) and other is not rows and other.start is rows.start and other.seal:
                seal = other.seal
                other.seal = replace(
                    seal, token_count=max(0, seal.token_count - tokens), sha256=None, frames_sha256=None
                )

    def _tokens(self) -> int:
        return sum(len(tokens) for part in self.drained.runs for tokens in part.tokens)

    def _settle(
        self, batch: Sequence[Part], *, commits: int = 0, committed: int = 0, messages: int = 0, lost: int = 0,
        lost_messages: int = 0,
    ) -> None:  # fmt: skip
        places, size = {part.place for part in batch}, bytes_in(batch)
        progress = self._progress
        # Calls come before the sums: if memory runs out, either all of this is counted or nothing.
        self._settled |= places
        progress.commits += commits
        progress.committed += committed
        progress.messages += messages
        progress.lost += lost
        progress.lost_messages += lost_messages
        self._queue.release(size, self.drained)

    def _report_loss(self) -> None:
        progress = self._progress
        progress.healthy = False
        if progress.last_error is None:  # the time was over before anything was tried
            progress.note(TimeoutError(), "storing")
        self._flushes.loss = StoreError(
            f"Closed while the database was not available: {describe_loss(progress.lost, progress.lost_messages)} "
            f"not stored ({progress.last_error})"
        )
        log.error("%s", self._flushes.loss)


def _bare(rows: RunRows) -> RunRows:
    """The rows without messages, and of the end only its status. They hold no bytes of the queue."""
    seal = rows.seal
    if seal is not None:
        seal = replace(seal, end=bare_end(seal.end))
    return replace(rows, messages=[], threaded=True, seal=seal, bytes=0)


def tokens_in(batch: Sequence[Part]) -> int:
    """How many tokens these parts hold."""
    return sum(part.tokens for part in batch)


def estimates_in(batch: Sequence[Part]) -> int:
    """How many runs end in these parts with an estimated usage."""
    seals = [part.seal for part in batch if isinstance(part, RunRows)]
    return sum(seal is not None and seal.end.usage_source == ESTIMATED_USAGE for seal in seals)


def bytes_in(batch: Sequence[Part]) -> int:
    """How many bytes of the queue these parts hold."""
    return sum(part.bytes for part in batch)


def messages_in(batch: Sequence[Part]) -> int:
    """How many messages, annotations and details without a run these parts hold."""
    return sum(part.count for part in batch if isinstance(part, Addition))
