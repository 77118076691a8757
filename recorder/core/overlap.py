"""Executes one item after the other, and computes the next one meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def overlapped(
    first: Item, others: Iterator[Item | None], execute: Callable[[Item], Coroutine[Any, Any, Result]]
) -> list[Result]:
    """The results of `execute` for the first item and for each of the others, in their order.

    The others are computed while the item before is executed. Before each item, `others` yields None at least once;
    there the event loop continues the execution. Two items are never executed at the same time, and when this returns
    or raises, none is. The last item, and so an only one, is executed without a task.
    """
    found: list[Result] = []
    item = first
    while next(others, others) is None:
        running = asyncio.ensure_future(execute(item))
        item = await _computed_beside(running, others)
        found.append(await running)  # a cancellation of the caller cancels it
    found.append(await execute(item))
    return found


async def _computed_beside(running: asyncio.Task[Any], others: Iterator[Item | None]) -> Item:
    """The next item. If computing it fails, the error is raised when the task has ended."""
    try:
        item = None
        while item is None:
            await asyncio.sleep(0)
            item = next(others)
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # retrieved, so that asyncio does not log it
        raise
    return item
