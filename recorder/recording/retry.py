"""A batch on its way into the store: tried until it is there, and parted from what never can be stored."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from recorder.core.clock import now
from recorder.core.deadline import Deadline, seconds
from recorder.core.ids import new_id
from recorder.recording.attempts import Attempts
from recorder.recording.batch_size import BatchSize
from recorder.recording.buffer import OpenRun, Took
from recorder.recording.in_flight import Hand, bytes_in
from recorder.recording.moves import begun_elsewhere
from recorder.recording.progress import Progress
from recorder.storage.dialects import Failure
from recorder.storage.fields import bare_end
from recorder.storage.liveness import this_process
from recorder.storage.rows import Addition, Batch, Part, Producer, RunRows, RunStart
from recorder.storage.store import Moved, RunIdTaken, Store

log = logging.getLogger("recorder")

#: Failures that come of the rows or of the database; and how often in a row a batch has one before that is asked.
_MAYBE_POISON = frozenset(("refused", "fatal"))
_REFUSALS = 2


class Storing:
    """Commits batches for the writer, and remembers the runs that it has stored."""

    def __init__(self, store: Store, progress: Progress, deadline: Deadline, max_bytes: int) -> None:
        self._store = store
        self._progress = progress
        self._deadline = deadline
        self.attempts = Attempts()
        #: How much is stored at once.
        self.size = BatchSize(max_bytes)
        #: Which process records.
        self.producer = Producer(new_id(), socket.gethostname(), os.getpid(), now(), now(), this_process())
        #: The runs that are stored and have no end yet, by their ids.
        self.streaming: dict[str, OpenRun] = {}
        #: Grows with each file that takes the place of one that was moved.
        self.file = 0

    async def beat(self) -> None:
        """Store that this process lives."""
        await self._append([])

    async def commit(self, hand: Hand, batch: list[Part]) -> None:
        """Store these rows, whatever it takes; rows that never can be stored are left out and told of."""
        if self.size.is_reduced and bytes_in(batch) > self.size.now and await self._in_halves(hand, batch):
            return None
        attempt = refusals = 0
        while not self._deadline.is_over:
            began = seconds()
            try:
                await self._deadline.in_time(self._append(batch))
            except RunIdTaken as error:
                self.attempts.rename(batch, error.run_ids, hand.left())
            except Moved as error:
                self._progress.note(error, "storing")
                await self.begin_anew(hand, batch)
            except Exception as error:
                if self._deadline.blocked:
                    break
                failure = self._store.failure(error)
                refusals = refusals + 1 if failure in _MAYBE_POISON else 0
                if await self._is_of_rows(failure, refusals, batch):
                    return await self._divide(hand, batch, error)
                self._progress.failed(error, "storing")
                if not await self._deadline.pause(attempt):
                    break
                if failure == "slow" and await self._slower(hand, batch, began):
                    return None
                attempt += 1
            else:
                self.size.grow(began)
                return hand.store(batch)
        return hand.lose(batch)

    def remember(self, took: Took) -> None:
        """All of it is stored: which runs go on."""
        for part in took.runs:
            run, run_id = part.run, part.run.start.run_id
            if part.end is None:
                self.streaming[run_id] = run
            else:
                self.streaming.pop(run_id, None)
            if part.end is None or not run.sealed:  # one that was idle may go on
                run.start = _without_request(run.start)

    async def begin_anew(self, hand: Hand, batch: Sequence[Part]) -> None:
        """The database is another one than before: store the rows of the runs that began in the one before."""
        self.file += 1
        left = {
            part.place: part for part in (*hand.left(), *batch)
        }  # those of the batch may have been reduced
        runs = {id(run): run for run in (*self.streaming.values(), *_unended(hand, left.values()))}
        if carried := begun_elsewhere(runs.values(), [*left.values()], self.file):
            await self.commit(hand, hand.add(carried))

    async def _append(self, batch: Sequence[Part]) -> None:
        self.producer = replace(self.producer, heartbeat_at=now())
        await self._store.append(Batch(self.producer, *_sorted_out(batch), self.streaming))

    async def _in_halves(self, hand: Hand, batch: list[Part]) -> bool:
        """Store one half after the other; False for one row, which has none."""
        halves = hand.halves(batch)
        for half in halves if len(halves) > 1 else ():
            await self.commit(hand, half)
        return len(halves) > 1

    async def _slower(self, hand: Hand, batch: list[Part], began: float) -> bool:
        """The batch took too long: less at once may get through."""
        self.size.halve(bytes_in(batch), began)
        return await self._in_halves(hand, batch)

    async def _is_of_rows(self, failure: Failure, refusals: int, batch: Sequence[Part]) -> bool:
        """Whether an error comes of what these rows hold, and not of the database: that one is away, full or locked
        is no refusal, and whatever else it has would make it refuse other rows, too."""
        if failure == "poison":
            return len(batch) > 1 or await self._takes_others()
        return refusals >= _REFUSALS and await self._takes_others()

    async def _takes_others(self) -> bool:
        """Whether the database stores other rows now. A rule of the user's own may refuse those as well, and is one
        about rows."""
        try:
            trial = Batch(self.producer, [], (), self.streaming, trial=True)
            await self._deadline.in_time(self._store.append(trial))
        except Exception as error:
            return self._store.failure(error) == "poison"
        return True

    async def _divide(self, hand: Hand, batch: list[Part], error: Exception) -> None:
        """Halve a batch that holds something poisonous until the one part is found, and store the rest."""
        if len(batch) > 1:
            await self._in_halves(hand, batch)
            return None
        words = self._progress.note(error, "storing")
        if isinstance(part := batch[0], Addition):
            return _leave_out(hand, part, words)
        return await self._reduce(hand, part, words)

    async def _reduce(self, hand: Hand, rows: RunRows, words: str) -> None:
        """Store a run without what never can be: first its messages, then what its end says beside the status, and
        last its tokens, of which a gap has the numbers."""
        run_id = rows.start.run_id
        if rows.messages or not rows.threaded:
            log.error("Run %s: its messages cannot be stored and are left out: %s", run_id, words)
            return await self.commit(hand, [replace(rows, messages=[], threaded=True)])
        if rows.seal is not None and rows.seal.end != (bare := bare_end(rows.seal.end)):
            log.error("Run %s: what its end says cannot be stored and is left out: %s", run_id, words)
            return await self.commit(hand, [replace(rows, seal=replace(rows.seal, end=bare))])
        if not rows.segments and not rows.frames:
            log.error("Run %s cannot be stored at all: %s", run_id, words)
            return hand.leave_out([rows])
        log.error("Run %s: %d tokens cannot be stored and are left out: %s", run_id, rows.tokens, words)
        return await self.commit(hand, [hand.quarantine(rows, words)])


def _leave_out(hand: Hand, addition: Addition, words: str) -> None:
    where = addition.conversation_id
    log.error("%d messages added to conversation %r cannot be stored: %s", len(addition.added), where, words)
    hand.leave_out([addition])


def _unended(hand: Hand, left: Iterable[Part]) -> Iterator[OpenRun]:
    """The runs of a batch of which something is to be stored still, now or later."""
    ids = {part.start.run_id for part in left if isinstance(part, RunRows)}
    for taken in hand.took.runs:
        if taken.end is None or taken.run.start.run_id in ids:
            yield taken.run


def _without_request(start: RunStart) -> RunStart:
    """What the end of an open run needs of its start, once that is stored. A copy, for the store may keep the other."""
    if not (start.messages or start.path or start.request or start.metadata):
        return start
    return replace(start, messages=(), path=(), request=None, metadata=None)


def _sorted_out(batch: Sequence[Part]) -> tuple[list[RunRows], list[Addition]]:
    return [part for part in batch if isinstance(part, RunRows)], [
        part for part in batch if isinstance(part, Addition)
    ]
