"""A store that is open, for synchronous code: an event loop of its own runs what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from recorder.storage.store import SqlStore

T = TypeVar("T")


class Opened:
    """Opens the database of a URL. Raises what `SqlStore.open` does."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.store = SqlStore(url, read_only=read_only)
        self._runner = asyncio.Runner()
        try:
            self.run(self.store.open())
        except BaseException:
            self._runner.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of it."""
        return self._runner.run(work)

    def close(self) -> None:
        """Let go of the database."""
        self.run(self.store.close())
        self._runner.close()
