"""Drives a playback: `drive` for synchronous callers and `adrive` for event loops share the rules in `Driver`.

A listener turns steps into items for the caller. The pace says when each item is due. `asteps` gives the steps
themselves, as soon as they are read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from recorder.core.trampoline import Trampoline
from recorder.replay.errors import raised
from recorder.replay.pace import Options, Pace
from recorder.replay.playback import (
    BeginStep,
    EndStep,
    FramesStep,
    GapStep,
    Playback,
    QueryStep,
    Step,
    TokensStep,
    WaitStep,
)
from recorder.replay.reader_thread import ReaderThread

#: An item that is due within this time (seconds) is given at once: a sleep takes longer.
_NOW = 0.00005
#: The longest single sleep (seconds). `time.sleep` refuses the longest times that a damaged recording may hold.
_LONGEST = 3600.0


class Listener(Protocol):
    """Turns each step of a playback into items for the caller."""

    def begin(self, begin: BeginStep) -> Sequence[Any]:
        """Items for the begin of a run."""

    def take(self, piece: TokensStep | FramesStep) -> Sequence[Any]:
        """One item for each token or frame of the step; None where the caller gets nothing for it."""

    def gap(self, gap: GapStep) -> Sequence[Any]:
        """Items that tell the caller of the gap."""

    def end(self, end: EndStep) -> Sequence[Any]:
        """Items for the end of a run. The error of the run is raised after them."""


class StepQueries:
    """Starts the queries of one playback, but never waits.

    It references its `owner`, a `Replay`: if that one were collected, its connection would be closed during the replay.
    """

    def __init__(self, reader: ReaderThread, playback: Playback, options: Options, *, owner: object) -> None:
        self._owner = owner
        self._reader = reader
        self._playback = playback
        self._options = options
        self._version = 0

    def follow(self) -> Future[Any] | None:
        """Begin to watch for commits. The first query must wait for this future; None without `follow`."""
        return self._reader.follow(self) if self._options.follow else None

    def leave(self) -> None:
        """End the replay, early or not. A finalizer calls this for a stream that was dropped."""
        self._playback.close()
        if self._options.follow:
            self._reader.unfollow(self)

    def request(self, step: QueryStep | WaitStep) -> Future[Any]:
        """Start what the step asks for; the future of its answer."""
        if isinstance(step, WaitStep):
            return self._reader.after(self._version)
        return self._reader.answer_to(step, follow=self._options.follow)

    def on_answer(self, step: QueryStep | WaitStep, answer: Any) -> Any:
        """The answer to send into the playback; remembers the version that a `WaitStep` has seen."""
        if isinstance(step, WaitStep):
            self._version = answer
        return answer

    async def answer(self, step: QueryStep | WaitStep) -> Any:
        """The answer to a step, for `asteps`."""
        return self.on_answer(step, await to_its_end(self.request(step)))


class Driver(StepQueries):
    """The state of one replay. Starts the queries and computes due times, but never waits."""

    def __init__(
        self, reader: ReaderThread, playback: Playback, listener: Listener, options: Options, *, owner: object,
        raises: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(reader, playback, options, owner=owner)
        self._listener = listener
        self._raises = raises
        self._pace = Pace(options)
        self._began = 0.0

    def items(self, step: Any) -> Iterator[tuple[float | None, Any]]:
        """The items of a step, each with its due time (seconds of `time.perf_counter`); None is at once."""
        listener = self._listener
        if isinstance(step, BeginStep):
            self._pace, self._began = Pace(self._options), time.perf_counter()
            yield from ((None, item) for item in listener.begin(step))
        elif isinstance(step, GapStep):
            yield from ((self._due(step.at_us), item) for item in listener.gap(step))
        elif isinstance(step, EndStep):
            yield from ((None, item) for item in listener.end(step))
            if self._raises and (error := raised(step.run)) is not None:
                raise error
        else:
            for (at_us, *_), item in zip(step.items, listener.take(step), strict=True):
                if item is not None:
                    yield self._due(at_us), item

    def at_once(self, step: Any) -> Sequence[Any] | None:
        """All items of a step of tokens or frames, if there is no pace; None for any other step."""
        if self._options.speed is not None or not isinstance(step, (TokensStep, FramesStep)):
            return None
        # `is not None`: `!=` would call `__eq__` of each chunk.
        return [item for item in self._listener.take(step) if item is not None]

    def _due(self, at_us: int) -> float | None:
        return None if self._options.speed is None else self._began + self._pace.due(at_us)


def drive(driver: Driver, playback: Playback) -> Iterator[Any]:
    """Yield the items of a playback when they are due; blocks between them."""
    try:
        if (following := driver.follow()) is not None:
            following.result()
        steps, answer = Trampoline(playback), None
        while (step := steps.step(answer)) is not None:
            answer = None
            if isinstance(step, (QueryStep, WaitStep)):
                answer = driver.on_answer(step, driver.request(step).result())
            elif (found := driver.at_once(step)) is not None:
                yield from found
            else:
                for due, item in driver.items(step):
                    while due is not None and (left := due - time.perf_counter()) > _NOW:
                        time.sleep(min(left, _LONGEST))
                    yield item
    finally:
        driver.leave()


async def adrive(driver: Driver, playback: Playback) -> AsyncIterator[Any]:
    """`drive` on an event loop; sleeps between the items."""
    try:
        if (following := driver.follow()) is not None:
            await asyncio.wrap_future(following)
        steps, answer = Trampoline(playback), None
        while (step := steps.step(answer)) is not None:
            answer = None
            if isinstance(step, (QueryStep, WaitStep)):
                answer = driver.on_answer(step, await asyncio.wrap_future(driver.request(step)))
            elif (found := driver.at_once(step)) is not None:
                for item in found:
                    yield item
                await asyncio.sleep(0)  # once a row, so that other tasks run
            else:
                for due, item in driver.items(step):
                    if due is not None and (left := due - time.perf_counter()) > _NOW:
                        await asyncio.sleep(left)
                    yield item
    finally:
        driver.leave()


async def asteps(queries: StepQueries, playback: Playback) -> AsyncGenerator[Step, None]:
    """Yield the steps of a playback as soon as they are read, without pace and without its queries.

    With `follow` it yields a `WaitStep` before it waits for a commit: everything that is committed was yielded by then.
    """
    try:
        if (following := queries.follow()) is not None:
            await to_its_end(following)
        steps, answer = Trampoline(playback), None
        while (step := steps.step(answer)) is not None:
            answer = None
            if not isinstance(step, QueryStep):
                yield step
            if isinstance(step, (QueryStep, WaitStep)):
                answer = await queries.answer(step)
    finally:
        queries.leave()


async def to_its_end(query: Future[Any]) -> Any:
    """The result of a query, which goes on if the caller is cancelled: it shares its connection with other callers."""
    return await asyncio.shield(asyncio.wrap_future(query))
