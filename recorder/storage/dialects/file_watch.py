"""Notices commits into a SQLite file without a query of its tables."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from urllib.parse import quote

from recorder.core.clock import monotonic_us
from recorder.storage.fork_safe import Handle

#: The interval between two queries of the file's version (seconds).
WATCH_INTERVAL = 0.01


class FileWatch:
    """Queries SQLite's `data_version`, which takes some microseconds and reads no table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._connect()
        self._seen = self._version()

    def _connect(self) -> Handle:
        return Handle(f"file:{quote(str(self._path))}?mode=ro", path=self._path, uri=True)

    async def wait_for_commit(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; True as soon as another connection has committed, False after the timeout."""
        until = monotonic_us() + timeout * 1e6
        while (version := self._version()) == self._seen:
            if monotonic_us() >= until:
                return False
            await asyncio.sleep(WATCH_INTERVAL)
        self._seen = version
        return True

    async def close(self) -> None:
        """Stop watching."""
        self._connection.close()

    def _version(self) -> int:
        try:
            if self._connection.closed_by_fork:
                # Versions of two connections cannot be compared, and there may have been a commit in between.
                self._connection = self._connect()
                return -1
            [(version,)] = self._connection.execute("PRAGMA data_version")
        except sqlite3.OperationalError:
            return self._seen  # another program has locked the file for a moment
        return int(version)
