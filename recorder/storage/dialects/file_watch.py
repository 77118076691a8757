"""Whether something was committed into a SQLite file, without a look at its tables."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from urllib.parse import quote

from recorder.core.clock import monotonic_us
from recorder.storage.dialects.handle import Handle

#: How often who watches asks for the file's version (seconds).
WATCH_INTERVAL = 0.01


class FileWatch:
    """Asks the file for its version, which takes some microseconds and reads no table."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._connect()
        self._seen = self._version()

    def _connect(self) -> Handle:
        return Handle(f"file:{quote(str(self._path))}?mode=ro", path=self._path, uri=True)

    async def news(self, timeout: float) -> bool:
        """Return when another connection has committed, or after `timeout` seconds; which of the two."""
        until = monotonic_us() + timeout * 1e6
        while (version := self._version()) == self._seen:
            if monotonic_us() >= until:
                return False
            await asyncio.sleep(WATCH_INTERVAL)
        self._seen = version
        return True

    async def close(self) -> None:
        """Watch no more."""
        self._connection.close()

    def _version(self) -> int:
        try:
            if self._connection.gone:
                # Its numbers are its own, and something may have been committed meanwhile.
                self._connection = self._connect()
                return -1
            [(version,)] = self._connection.execute("PRAGMA data_version")
        except sqlite3.OperationalError:
            return self._seen  # locked for a moment
        return int(version)
