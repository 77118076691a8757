"""Indexes stored messages for the search while nothing else is to be stored.

These are the messages of bursts, and those that older versions stored. What a process leaves behind, the next one does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf
from typing import Any

from recorder.core.deadline import seconds
from recorder.storage.batch import MOST_INDEXED, Part

log = logging.getLogger("recorder")

#: Messages of one transaction. It takes some milliseconds, by which a token may be stored later.
_AT_ONCE = 50
#: The pause after a transaction, as a multiple of the time that it took: a third of one thread is used at most.
_PAUSE = 2
#: A burst has ended when no further batch of it came for so long, or it has taken the longer time (seconds).
_QUIET, _LONGEST_BURST = 0.3, 5.0
#: The pause after an error (seconds): the database is locked or away, or the role may not change messages.
_RETRY = 60.0


class LateIndexing:
    """Knows whether messages may be waiting. Its methods are called on the writer's thread."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._next_at = 0.0  # messages of earlier processes may wait
        self._burst_began = -inf
        self._has_failed = False
        #: Messages that were indexed.
        self.indexed = 0

    def add(self, parts: Sequence[Part]) -> None:
        """These parts are stored. If they are many, their messages are not indexed: a burst goes on, or ends here."""
        if sum(len(part.messages) for part in parts) <= MOST_INDEXED:
            return
        now = seconds()
        if self._next_at == inf:
            self._burst_began = now
        self._next_at = max(now, min(now + _QUIET, self._burst_began + _LONGEST_BURST))

    @property
    def delay(self) -> float:
        """Seconds until `advance` is to be called; infinite without work."""
        return max(0.0, self._next_at - seconds())

    async def advance(self) -> None:
        """Index some messages. What fails is tried again later."""
        began = seconds()
        try:
            found = await self._index()
        except Exception as error:
            self._next_at = seconds() + _RETRY
            if not self._has_failed:
                log.info("Messages could not be indexed (%s: %s)", type(error).__name__, error)
            self._has_failed = True
            return
        self.indexed += found
        self._next_at = seconds() + _PAUSE * (seconds() - began) if found else inf

    async def _index(self) -> int:
        store = getattr(self._store, "loaded", self._store)
        if not hasattr(store, "index_messages"):  # a store of the application's own, or in memory
            return 0
        count: int = await store.index_messages(_AT_ONCE)
        return count
