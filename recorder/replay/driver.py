"""Drives a play: two thin drivers, for synchronous callers and for an event loop, over one body of rules.

A listener turns pieces into what the caller gets; the pace says when each is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from recorder.core.trampoline import Trampoline
from recorder.replay.errors import raised
from recorder.replay.pace import Options, Pace
from recorder.replay.playback import Ask, Begin, End, Frames, Gap, Play, Tokens, Wait
from recorder.replay.reader_thread import Reader

#: A due time this near (seconds) is not waited for: sleeping takes longer.
_NOW = 0.00005
#: The longest single sleep (seconds); a stranger's recording may want one that no clock can count.
_LONGEST = 3600.0


class Listener(Protocol):
    """What becomes of the pieces."""

    def begin(self, begin: Begin) -> Sequence[Any]:
        """What the caller gets when a run begins."""

    def take(self, piece: Tokens | Frames) -> Sequence[Any]:
        """For each item of the piece what the caller gets; None for one that says nothing."""

    def gap(self, gap: Gap) -> Sequence[Any]:
        """What shows that something is missing."""

    def end(self, end: End) -> Sequence[Any]:
        """What the caller gets at the end of a run, before its error is raised."""


class Driver:
    """One replay on its way: answers the play's questions and says what is due when. Without any waiting.

    It holds its `owner`, so that the reader is not let go of while somebody reads.
    """

    def __init__(
        self, reader: Reader, play: Play, listener: Listener, options: Options, *, owner: object, raises: bool = True
    ) -> None:  # fmt: skip
        self._owner = owner
        self._reader = reader
        self._play = play
        self._listener = listener
        self._options = options
        self._raises = raises
        self._pace = Pace(options)
        self._began = 0.0
        self._version = 0

    def follow(self) -> Future[Any] | None:
        """What to wait for before anything is asked; None where nobody follows."""
        return self._reader.follow(self) if self._options.follow else None

    def leave(self) -> None:
        """The caller has left, or all is played. Called by a finalizer where a stream is just dropped."""
        self._play.close()
        if self._options.follow:
            self._reader.unfollow(self)

    def question(self, step: Ask | Wait) -> Future[Any]:
        """Where the answer to a step comes from."""
        if isinstance(step, Wait):
            return self._reader.after(self._version)
        return self._reader.answer_to(step, follow=self._options.follow)

    def answered(self, step: Ask | Wait, answer: Any) -> Any:
        """What to send into the play."""
        if isinstance(step, Wait):
            self._version = answer
        return answer

    def items(self, step: Any) -> Iterator[tuple[float | None, Any]]:
        """What the caller gets of a piece, and when each is due on the clock; None for at once."""
        listener = self._listener
        if isinstance(step, Begin):
            self._pace, self._began = Pace(self._options), time.perf_counter()
            yield from ((None, item) for item in listener.begin(step))
        elif isinstance(step, Gap):
            yield from ((self._due(step.at_us), item) for item in listener.gap(step))
        elif isinstance(step, End):
            yield from ((None, item) for item in listener.end(step))
            if self._raises and (error := raised(step.run)) is not None:
                raise error
        else:
            for (at_us, *_), item in zip(step.items, listener.take(step), strict=True):
                if item is not None:
                    yield self._due(at_us), item

    def at_once(self, step: Any) -> Sequence[Any] | None:
        """All that the caller gets of a piece that need not be paced; None for one that `items` is for."""
        if self._options.speed is not None or not isinstance(step, (Tokens, Frames)):
            return None
        # Not `None in`: that asks each chunk whether it equals None.
        return [item for item in self._listener.take(step) if item is not None]

    def _due(self, at_us: int) -> float | None:
        return None if self._options.speed is None else self._began + self._pace.due(at_us)


def drive(driver: Driver, play: Play) -> Iterator[Any]:
    """What the caller gets, when it is due."""
    try:
        if (following := driver.follow()) is not None:
            following.result()
        steps, answer = Trampoline(play), None
        while (step := steps.step(answer)) is not None:
            answer = None
            if isinstance(step, (Ask, Wait)):
                answer = driver.answered(step, driver.question(step).result())
            elif (found := driver.at_once(step)) is not None:
                yield from found
            else:
                for due, item in driver.items(step):
                    while due is not None and (left := due - time.perf_counter()) > _NOW:
                        time.sleep(min(left, _LONGEST))
                    yield item
    finally:
        driver.leave()


async def adrive(driver: Driver, play: Play) -> AsyncIterator[Any]:
    """`drive` on an event loop."""
    try:
        if (following := driver.follow()) is not None:
            await asyncio.wrap_future(following)
        steps, answer = Trampoline(play), None
        while (step := steps.step(answer)) is not None:
            answer = None
            if isinstance(step, (Ask, Wait)):
                answer = driver.answered(step, await asyncio.wrap_future(driver.question(step)))
            elif (found := driver.at_once(step)) is not None:
                for item in found:
                    yield item
                await asyncio.sleep(0)  # others have their turn, once a row
            else:
                for due, item in driver.items(step):
                    if due is not None and (left := due - time.perf_counter()) > _NOW:
                        await asyncio.sleep(left)
                    yield item
    finally:
        driver.leave()
