"""The tokens that are streamed, and the measurements that a process takes of itself."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from recorder.testing import song_pieces


def words(seed: int, count: int) -> list[str]:
    """Tokens like those of a model, in an order that depends on `seed`."""
    return random.Random(seed).choices(song_pieces(), k=count)


def cpu_seconds() -> float:
    """The processor time of this process in seconds: all threads, user and system time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Neighbours:
    """The share of the machine that other processes use, since this object was created."""

    def __init__(self) -> None:
        self._busy, self._ours, self._at = _busy_seconds(), _our_seconds(), time.monotonic()

    def share(self) -> float:
        """A fraction of all cores' time. A child process of ours is counted as ours when it has ended."""
        theirs = (_busy_seconds() - self._busy) - (_our_seconds() - self._ours)
        return max(0.0, theirs / (time.monotonic() - self._at) / (os.cpu_count() or 1))


def _busy_seconds() -> float:
    """The processor time of all processes, from the first line of /proc/stat."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def _our_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def resident_bytes() -> int:
    """The resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def percentile(figures: Sequence[float], share: float) -> float:
    """The value that this share of all values does not exceed (nearest rank)."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def size_of_table(database: str, table: str) -> int:
    """Bytes of the pages that one table takes, its key included; 0 where SQLite was built without `dbstat`."""
    with closing(sqlite3.connect(database)) as connection:
        try:
            (found,) = connection.execute(
                "SELECT sum(pgsize) FROM dbstat WHERE name = ?", (table,)
            ).fetchone()
        except sqlite3.OperationalError:
            return 0
    return int(found or 0)


def size_on_disk(database: str) -> int:
    """Bytes of a SQLite database, its journal files included."""
    return sum(file.stat().st_size for file in Path(database).parent.glob(Path(database).name + "*"))
