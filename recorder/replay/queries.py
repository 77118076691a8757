"""Puts the questions of a generator to the library: for synchronous callers, and on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from recorder.replay.playback import Ask
from recorder.replay.reader_thread import Reader

T = TypeVar("T")
#: Asks, and returns what it was about.
Asking = Generator[Ask, Any, T]


def answered(reader: Reader, asking: Asking[T]) -> T:
    """What comes of it."""
    answer: Any = None
    while True:
        try:
            ask = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = reader.ask(ask.method, *ask.given).result()


async def answered_async(reader: Reader, asking: Asking[T]) -> T:
    """`answered` on an event loop, which it does not keep."""
    answer: Any = None
    while True:
        try:
            ask = asking.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = await asyncio.wrap_future(reader.ask(ask.method, *ask.given))
