"""Waits until something is stored, by any process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from recorder.replay.driver import to_its_end
from recorder.server.database import ServedDatabase

T = TypeVar("T")


async def after_commits(
    database: ServedDatabase, look: Callable[[], Awaitable[T | None]], within: float
) -> T | None:
    """What `look` returns, which is called now and after each commit; None if that is None for `within` seconds."""
    reader, waiting = database.hub().reader, object()
    try:
        async with asyncio.timeout(within):
            await to_its_end(reader.follow(waiting))
            while True:
                version = reader.version
                if (found := await look()) is not None:
                    return found
                await to_its_end(reader.after(version))
    except TimeoutError:
        return None
    finally:
        reader.unfollow(waiting)
