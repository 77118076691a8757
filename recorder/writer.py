"""The coroutine that takes, packs, commits, retries and settles; the only one that knows a database.

An idle writer commits at once, so that the user's message is stored before the first token comes; after that no
batch starts sooner than `flush_interval` after the last was done, so that a batch holds many tokens of a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from recorder.attempts import Attempts
from recorder.clock import monotonic_us, now
from recorder.config import Config
from recorder.errors import StoreError
from recorder.fields import bare_end
from recorder.flushes import Flushes
from recorder.hand import Hand
from recorder.identity import new_id
from recorder.intake import Intake
from recorder.lineage import asked, thread
from recorder.liveness import is_dead, this_process
from recorder.opening import Opening
from recorder.openrun import OpenRun, Took
from recorder.pack import pack
from recorder.progress import Progress
from recorder.records import Addition, Batch, GapRow, Part, Producer, RunRows, RunStart
from recorder.registry import Registry
from recorder.store import Store, Taken
from recorder.stored import escape
from recorder.waiting import Wait

log = logging.getLogger("recorder")

#: Full jitter between these (seconds), doubling: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
MIN_RETRY = 0.05
MAX_RETRY = 5.0
#: The longest pause between attempts while closing.
_LAST_RETRY = 0.2
#: How long the database has to let go when the time to close is over (seconds).
CLOSE_GRACE = 0.5


class Writer:
    """Moves what the intake holds into the store until it is closed."""

    def __init__(
        self, intake: Intake, store: Store, config: Config, registry: Registry, *, attended: bool = True
    ) -> None:
        self._intake = intake
        self._store = store
        self._config = config
        self._registry = registry
        self._flushes = Flushes(intake)
        # The batch that is being stored.
        self._hand: Hand | None = None
        self._failures = 0
        self._last_end = -inf
        self._beat_at = 0.0
        # When to look for runs that are idle.
        self._idle_at = inf if config.run_idle_timeout is None else 0.0
        self._deadline: float | None = None
        #: Whether the driver was left in the middle of a call when the time to close ran out.
        self._blocked = False
        self._producer = Producer(new_id(), socket.gethostname(), os.getpid(), now(), now(), this_process())
        self._attempts = Attempts()
        #: The runs that are stored and have no end yet, by their ids.
        self._streaming: dict[str, OpenRun] = {}
        self.progress = Progress()
        self.opening = Opening(store, config, self.progress, attended=attended)

    def flush(self) -> Wait[None]:
        """Over when everything accepted until now is committed. Callable from any thread, and takes no lock."""
        return self._flushes.add()

    def close(self, timeout: float) -> None:
        """Take nothing more, drain for at most `timeout` seconds, then end. Callable from any thread, and again."""
        deadline = _seconds() + timeout
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        self._intake.close()

    @property
    def closing(self) -> bool:
        """Whether it was told when to end."""
        return self._deadline is not None

    def leave_to_parent(self) -> None:
        """In a forked child: nothing flushes here what the parent's queue holds."""
        self._flushes.leave_to_parent()

    async def run(self) -> None:
        """Until `close`. Never raises for what the database does, nor for what goes wrong in storing a batch."""
        self._intake.bind(self._config.max_batch_bytes)
        try:
            goes_on = await self._open()
            while goes_on:
                try:
                    goes_on = await self._round()
                except Exception as error:  # a bug of ours, or no memory
                    goes_on = await self._survived(error)
        except BaseException as error:  # somebody tears down the loop
            self.died(error)
            raise
        finally:
            try:
                self._forsake()
            except Exception as error:
                self.died(error)
            self._flushes.end()
            await self._closed_store()

    def died(self, error: BaseException) -> None:
        """Nothing will be stored any more, though nobody closed it: whoever waits is told."""
        self.progress.died(error)
        self._flushes.loss = StoreError(
            f"The recorder's writer ended ({self.progress.last_error}); open a new one"
        )
        self.opening.end(error)

    async def _round(self) -> bool:
        """Rest until there is something to store, and store it; whether there is another round."""
        if self._hand is not None:
            await self._store_apart(self._hand)
        await self._rest()
        closed = self._intake.closed  # looked at first: what comes before the end is taken below
        self._flushes.look()
        self._hand = Hand(Took(), self._intake, self._flushes, self.progress)
        took = self._intake.take(self._config.max_batch_bytes, self._hand.took)
        if took.ticket:
            await self._commit(self._hand.hold(self._attempts.separate(pack(took.runs))))
            self._remember(took)
            self._last_end = _seconds()
        self._flushes.settle(took.ticket)
        self._hand = None
        self._failures = 0
        if closed and not took.ticket:
            return False
        await self._heartbeat()
        self._close_idle()
        return True

    async def _survived(self, error: Exception) -> bool:
        """An error ends neither the recording nor the rest of its batch; whether there is another round."""
        self._failures += 1
        self.progress.broke(error)
        self._intake.want()  # a flush may have been looked at in vain
        return await self._pause(self._failures)

    async def _store_apart(self, hand: Hand) -> None:
        """Storing a batch failed, and not because of the database: store each part by itself, and give up the rest."""
        hand.failures += 1
        if hand.failures == 1:
            for part in hand.left() if hand.parts else hand.hold_without_tokens():
                try:
                    await self._commit([part])
                except Exception as error:
                    self.progress.broke(error)
            self._remember(hand.took)
        hand.give_up()
        self._hand = None

    def _remember(self, took: Took) -> None:
        for part in took.runs:
            part.run.start = _without_request(part.run.start)
            run_id = part.run.start.run_id
            if part.end is None:
                self._streaming[run_id] = part.run
            else:
                self._streaming.pop(run_id, None)

    async def _open(self) -> bool:
        """Open the store, however long it takes; whether the recorder begins."""
        late = asyncio.get_running_loop().call_later(self._config.open_timeout, self._opens_late)
        try:
            return await self._opened()
        finally:
            late.cancel()

    async def _opened(self) -> bool:
        attempt = 0
        while True:
            try:
                await self._in_time(self._store.open())
            except Exception as error:
                if self._blocked or not self.opening.goes_on(error, attempt):
                    return False
                if not await self._pause(attempt):
                    return False
                attempt += 1
            else:
                self.progress.healthy = True
                # While whoever constructs the recorder waits: later, beside a busy application, it takes 50 times as
                # long, and the first message would wait for it.
                await self._heartbeat()
                self.opening.done()
                return True

    def _opens_late(self) -> None:
        if not self.opening.takes_long():
            self.close(0)

    async def _rest(self) -> None:
        """Until there is work and its time has come, or the heartbeat is due."""
        patience = min(self._beat_at - _seconds(), self._idle_at - _seconds(), self._intake.due())
        if patience > 0:
            try:
                await asyncio.wait_for(self._intake.work(), patience)
            except TimeoutError:
                pass  # frames have come of age, or the heartbeat is due
        if self._deadline is not None:
            return
        spacing = self._config.flush_interval
        if self._config.max_commits_per_second:
            spacing = max(spacing, 1 / self._config.max_commits_per_second)
        while (left := self._last_end + spacing - _seconds()) > 0 and not self._intake.wanted:
            await self._intake.urgency(min(left, max(0.0, self._beat_at - _seconds())))
            await self._heartbeat()

    async def _commit(self, batch: list[Part]) -> None:
        """Store these rows, whatever it takes; rows that never can be stored are left out and told of."""
        assert self._hand is not None
        attempt, hand = 0, self._hand
        while True:
            if self._deadline is not None and _seconds() > self._deadline:
                return hand.lose(batch)
            try:
                await self._in_time(self._append(batch))
            except Taken as error:
                self._attempts.rename(batch, error.run_ids)
            except Exception as error:
                if self._blocked:
                    return hand.lose(batch)
                if self._store.failure(error) == "poison":
                    return await self._divide(batch, error)
                self.progress.failed(error, "storing")
                if not await self._pause(attempt):
                    return hand.lose(batch)
                attempt += 1
            else:
                return hand.store(batch)

    async def _in_time(self, work: Coroutine[Any, Any, object], *, at_least: float = 0.0) -> None:
        """Wait for it, but not beyond the time to close, however long the driver blocks; then `TimeoutError`."""
        task = asyncio.ensure_future(work)
        soonest = _seconds() + at_least
        while not task.done():
            left = inf if self._deadline is None else max(self._deadline, soonest) - _seconds()
            if left <= 0:
                self._blocked = True
                task.cancel()
                raise TimeoutError("the database did not answer in time")
            await asyncio.wait({task}, timeout=min(left, _LAST_RETRY))
        task.result()

    async def _append(self, batch: list[Part]) -> None:
        loose = [part for part in batch if not part.threaded]
        if additions := _sorted_out(loose)[1]:
            # Two that add below the same message would make a branch, which no request asked for.
            async with self._store.alone([addition.conversation_id for addition in additions]):
                return await self._store_threaded(loose, batch)
        return await self._store_threaded(loose, batch)

    async def _store_threaded(self, loose: Sequence[Part], batch: Sequence[Part]) -> None:
        if loose:
            thread(loose, await self._store.known(asked(loose)))
        self._producer = replace(self._producer, heartbeat_at=now())
        await self._store.append(Batch(self._producer, *_sorted_out(batch), self._streaming))

    async def _divide(self, batch: list[Part], error: Exception) -> None:
        """Halve a batch that holds something poisonous until the one part is found, and store the rest."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            return await self._commit(batch[middle:])
        words = self.progress.note(error, "storing")
        if isinstance(part := batch[0], Addition):
            return self._leave_out(part, words)
        return await self._reduce(part, words)

    def _leave_out(self, addition: Addition, words: str) -> None:
        assert self._hand is not None
        where = addition.conversation_id
        log.error(
            "%d messages added to conversation %r cannot be stored: %s", len(addition.said), where, words
        )
        self._hand.leave_out([addition])

    async def _reduce(self, rows: RunRows, words: str) -> None:
        """Store a run without what never can be: first its messages, then what its end says beside the status, and
        last its tokens, of which a gap has the numbers."""
        assert self._hand is not None
        run_id = rows.start.run_id
        if rows.messages or not rows.threaded:
            log.error("Run %s: its messages cannot be stored and are left out: %s", run_id, words)
            return await self._commit([replace(rows, messages=[], threaded=True)])
        if rows.seal is not None and rows.seal.end != (bare := bare_end(rows.seal.end)):
            log.error("Run %s: what its end says cannot be stored and is left out: %s", run_id, words)
            return await self._commit([replace(rows, seal=replace(rows.seal, end=bare))])
        if not rows.segments and not rows.frames:
            log.error("Run %s cannot be stored at all: %s", run_id, words)
            return self._hand.leave_out([rows])
        log.error("Run %s: %d tokens cannot be stored and are left out: %s", run_id, rows.tokens, words)
        self.progress.quarantined += rows.tokens
        reason = escape(f"quarantined: {words}"[:500])
        gaps = [*rows.gaps, *(GapRow(row.run_id, row.seq, row.count, reason) for row in rows.segments)]
        return await self._commit([replace(rows, segments=[], frames=(), gaps=gaps, tokens=0)])

    def _forsake(self) -> None:
        """What the writer leaves when it ends: something only where it never opened the database, or died."""
        last = self._intake.unbind()
        if self._hand is not None:
            self._hand.give_up()
        hand = Hand(self._intake.take(sys.maxsize), self._intake, self._flushes, self.progress)
        if hand.took.ticket:
            hand.lose_all()
        self._flushes.settle(max(last, hand.took.ticket))

    async def _heartbeat(self) -> None:
        """Now and then say that this process lives, and sweep the runs of processes that do not."""
        if _seconds() < self._beat_at:
            return
        self._beat_at = _seconds() + self._config.heartbeat_interval
        self._producer = replace(self._producer, heartbeat_at=now())
        try:
            await self._in_time(self._store.append(Batch(self._producer, [], (), self._streaming)))
            await self._in_time(self._store.sweep(self._is_dead, now()))
            self.progress.went_well()
        except Exception as error:
            self.progress.failed(error, "the heartbeat")

    def _close_idle(self) -> None:
        timeout = self._config.run_idle_timeout
        if timeout is not None and _seconds() >= self._idle_at:
            self._registry.close_idle(self._intake, timeout)
            self._idle_at = _seconds() + timeout / 4

    def _is_dead(self, producer: Producer) -> bool:
        """Another's, silent for too long or gone."""
        return producer.id != self._producer.id and is_dead(producer, now(), self._config.interrupted_after)

    async def _pause(self, attempt: int) -> bool:
        """Wait before the next attempt, with full jitter; False when the time to close has run out."""
        longest = min(MAX_RETRY, MIN_RETRY * 2 ** min(attempt, 10))
        over = _seconds() + random.uniform(MIN_RETRY, max(longest, MIN_RETRY))
        while (left := over - _seconds()) > 0:
            if self._deadline is not None:  # the time that is left is for trying
                await asyncio.sleep(max(0.0, min(left, _LAST_RETRY, self._deadline - _seconds())))
                return _seconds() < self._deadline
            await asyncio.sleep(min(left, _LAST_RETRY))  # `close` may come meanwhile
        return True

    async def _closed_store(self) -> None:
        if self._blocked:
            return  # its thread is in the database still, and ends with the process
        try:
            await self._in_time(self._store.close(), at_least=CLOSE_GRACE)
        except Exception as error:
            log.warning(
                "The database was not closed in time: %s", self.progress.note(error, "closing the database")
            )


def _without_request(start: RunStart) -> RunStart:
    """What the end of an open run needs of its start, once that is stored. A copy, for the store may keep the other."""
    if not (start.messages or start.path or start.request or start.metadata):
        return start
    return replace(start, messages=(), path=(), request=None, metadata=None)


def _sorted_out(batch: Sequence[Part]) -> tuple[list[RunRows], list[Addition]]:
    return [part for part in batch if isinstance(part, RunRows)], [
        part for part in batch if isinstance(part, Addition)
    ]


def _seconds() -> float:
    return monotonic_us() / 1e6
