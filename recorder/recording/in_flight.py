"""A batch that is being stored, and what has become of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from recorder.core.escaping import escape
from recorder.errors import StoreError
from recorder.recording.buffer import Took
from recorder.recording.flushes import Flushes
from recorder.recording.halves import halved
from recorder.recording.progress import Progress, missing
from recorder.recording.queue import RecordingQueue
from recorder.recording.serialize import without_tokens
from recorder.storage.fields import bare_end
from recorder.storage.rows import Addition, GapRow, Part, RunRows

log = logging.getLogger("recorder")


class Hand:
    """Its parts are settled one after another: stored, lost or left out. Each is counted once, and its bytes go back to
    the queue, whatever fails in between."""

    def __init__(self, took: Took, queue: RecordingQueue, flushes: Flushes, progress: Progress) -> None:
        #: What was taken, and what is to be stored of it: empty until it was packed.
        self.took = took
        self.parts: list[Part] = []
        #: How often storing it failed, and not because of the database.
        self.failures = 0
        self._queue = queue
        self._flushes = flushes
        self._progress = progress
        # Places of the parts that are stored, lost or left out, and of those that lost their tokens.
        self._settled: set[int] = set()
        self._emptied: set[int] = set()
        self._accounted = progress.accounted

    def hold(self, packed: Sequence[RunRows]) -> list[Part]:
        """It was packed into these rows, but for tokens that could not be; the parts to store."""
        parts: list[Part] = [*packed, *self.took.additions]
        for place, part in enumerate(parts):
            part.place = place
        unpacked = sum(rows.unpacked for rows in packed)
        self.parts = parts
        self._progress.quarantined += unpacked
        return parts

    def hold_without_tokens(self, file: int) -> list[Part]:
        """It could not be packed: rows, messages and ends are stored, with gaps in place of tokens."""
        packed = [without_tokens(taken, file) for taken in self.took.runs]
        for rows in packed:  # some of them may have been packed before, and none was stored
            rows.opens = rows.start.placement.position < 0
        return self.hold(packed)

    def add(self, carried: Sequence[RunRows]) -> list[Part]:
        """Rows of runs to store with it, which hold nothing of the queue."""
        parts: list[Part] = [*carried]
        for place, part in enumerate(parts, len(self.parts)):
            part.place = place
        self.parts = [*self.parts, *parts]
        return parts

    def halves(self, batch: Sequence[Part]) -> list[list[Part]]:
        """The batch as two, or as one where it is one row."""
        if middle := len(batch) // 2:
            return [[*batch[:middle]], [*batch[middle:]]]
        found = halved(batch[0]) if batch else None
        if found is None:
            return [[*batch]]
        first, second = found
        second.place = len(self.parts)
        self.parts = [*self.parts[: first.place], first, *self.parts[first.place + 1 :], second]
        return [[first], [second]]

    def left(self) -> list[Part]:
        """The parts that nothing has become of."""
        return [part for part in self.parts if part.place not in self._settled]

    def store(self, batch: Sequence[Part]) -> None:
        """These are stored, by one transaction."""
        self._settle(batch, commits=1, committed=tokens_in(batch), messages=messages_in(batch))
        self._progress.went_well()

    def lose(self, batch: Sequence[Part]) -> None:
        """These never will be, for the time to close has run out."""
        self._settle(batch, lost=tokens_in(batch), lost_messages=messages_in(batch))
        self._tell_loss()

    def leave_out(self, batch: Sequence[Part]) -> None:
        """These cannot be stored, and whoever found that has counted and told it."""
        self._settle(batch)

    def lose_all(self) -> None:
        """Nothing of it was begun, and the writer ends."""
        self._progress.lost += self._tokens()
        self._progress.lost_messages += messages_in(self.took.additions)
        self._queue.release(self.took.bytes)
        self._tell_loss()

    def give_up(self) -> None:
        """What nothing has become of counts as quarantined, and a flush raises."""
        tokens = self._tokens() - (self._progress.accounted - self._accounted)
        messages = messages_in(self.left() if self.parts else self.took.additions)
        self._queue.release(self.took.bytes - self.took.released, self.took)
        if tokens or messages:
            self._progress.quarantined += tokens
            self._progress.lost_messages += messages
            words = f"{missing(tokens, messages)} not stored ({self._progress.last_error}); recording goes on"
            self._flushes.fail(self.took.ticket, StoreError(words))
        self._flushes.settle(self.took.ticket)

    def owed(self, file: int) -> list[RunRows]:
        """Of the runs that nothing has become of: their rows and ends, with gaps in place of tokens."""
        if not self.parts:
            self.hold_without_tokens(file)
        words = str(self._progress.last_error)
        runs = [part for part in self.left() if isinstance(part, RunRows)]
        return [_bare(self._without_tokens(rows, words)) for rows in runs]

    def quarantine(self, rows: RunRows, words: str) -> RunRows:
        """The rows with gaps in place of their tokens, which never can be stored and count as quarantined."""
        if rows.place not in self._emptied:
            self._progress.quarantined += rows.tokens
        return self._without_tokens(rows, words)

    def _without_tokens(self, rows: RunRows, words: str) -> RunRows:
        """The run's end will have no proof that it is whole."""
        seal, lost = rows.seal, sum(row.count for row in rows.segments)
        if rows.place not in self._emptied:
            self._emptied.add(rows.place)
            self._forget(rows, lost)
        if seal is not None:
            seal = replace(seal, token_count=max(0, seal.token_count - lost), sha256=None, frames_sha256=None)
        reason = escape(f"quarantined: {words}"[:500])
        gaps = [*rows.gaps, *(GapRow(row.run_id, row.seq, row.count, reason) for row in rows.segments)]
        return replace(rows, segments=[], frames=(), gaps=gaps, tokens=0, seal=seal)

    def _forget(self, rows: RunRows, tokens: int) -> None:
        for taken in self.took.runs:
            if taken.run.start.run_id == rows.start.run_id and taken.run.totals is not None:
                taken.run.totals.lose_tokens(tokens)
        for other in self.left():  # where it was halved, its end may be in another part
            if isinstance(other, RunRows) and other is not rows and other.start is rows.start and other.seal:
                seal = other.seal
                other.seal = replace(
                    seal, token_count=max(0, seal.token_count - tokens), sha256=None, frames_sha256=None
                )

    def _tokens(self) -> int:
        return sum(len(tokens) for part in self.took.runs for tokens in part.tokens)

    def _settle(
        self, batch: Sequence[Part], *, commits: int = 0, committed: int = 0, messages: int = 0, lost: int = 0,
        lost_messages: int = 0,
    ) -> None:  # fmt: skip
        places, size = {part.place for part in batch}, bytes_in(batch)
        progress = self._progress
        # First calls, then sums: where memory runs out, all of this is counted or nothing.
        self._settled |= places
        progress.commits += commits
        progress.committed += committed
        progress.messages += messages
        progress.lost += lost
        progress.lost_messages += lost_messages
        self._queue.release(size, self.took)

    def _tell_loss(self) -> None:
        progress = self._progress
        self._flushes.loss = StoreError(
            f"Closed with the database away: {missing(progress.lost, progress.lost_messages)} not stored "
            f"({progress.last_error or 'it did not answer in time'})"
        )
        log.error("%s", self._flushes.loss)


def _bare(rows: RunRows) -> RunRows:
    """Without messages, and without what its end says beside the status; it holds nothing of the queue."""
    seal = rows.seal
    if seal is not None:
        seal = replace(seal, end=bare_end(seal.end))
    return replace(rows, messages=[], threaded=True, seal=seal, bytes=0)


def tokens_in(batch: Sequence[Part]) -> int:
    """How many tokens these parts hold."""
    return sum(part.tokens for part in batch)


def bytes_in(batch: Sequence[Part]) -> int:
    """How many bytes of the queue these parts hold."""
    return sum(part.bytes for part in batch)


def messages_in(batch: Sequence[Part]) -> int:
    """How many messages without a run these parts hold."""
    return sum(len(part.added) for part in batch if isinstance(part, Addition))
