"""Puts the questions of a generator to the library: for synchronous callers, and on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from recorder.core.trampoline import Trampoline
from recorder.replay.playback import Ask
from recorder.replay.reader_thread import Reader

T = TypeVar("T")
#: Asks, and returns what it was about.
Asking = Generator[Ask, Any, T]


def answered(reader: Reader, asking: Asking[T]) -> T:
    """What comes of it."""
    steps, answer = Trampoline(asking), None
    while (ask := steps.step(answer)) is not None:
        answer = reader.ask(ask.method, *ask.given).result()
    return steps.result


async def answered_async(reader: Reader, asking: Asking[T]) -> T:
    """`answered` on an event loop, which it does not keep."""
    steps, answer = Trampoline(asking), None
    while (ask := steps.step(answer)) is not None:
        answer = await asyncio.wrap_future(reader.ask(ask.method, *ask.given))
    return steps.result
