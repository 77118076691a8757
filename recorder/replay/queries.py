"""Runs the queries of a generator, for synchronous callers and on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from recorder.core.trampoline import Trampoline
from recorder.replay.playback import QueryStep
from recorder.replay.reader_thread import ReaderThread

T = TypeVar("T")
#: Yields queries, gets their results, and returns a T.
Queries = Generator[QueryStep, Any, T]


def run_queries(reader: ReaderThread, queries: Queries[T]) -> T:
    """What the generator returns; blocks during each query."""
    steps, answer = Trampoline(queries), None
    while (step := steps.step(answer)) is not None:
        answer = reader.ask(step.method, *step.arguments).result()
    return steps.result


async def run_queries_async(reader: ReaderThread, queries: Queries[T]) -> T:
    """`run_queries` on an event loop, which stays free for other tasks."""
    steps, answer = Trampoline(queries), None
    while (step := steps.step(answer)) is not None:
        answer = await asyncio.wrap_future(reader.ask(step.method, *step.arguments))
    return steps.result
