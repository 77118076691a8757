"""What is streamed, and how a process measures itself."""

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
    """Tokens as a model writes them, in a random order of that seed."""
    return random.Random(seed).choices(song_pieces(), k=count)


def cpu_seconds() -> float:
    """What this process has used of the processor, all its threads, the kernel's work for it included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Neighbours:
    """How much of the machine processes that are not ours take from its making on."""

    def __init__(self) -> None:
        self._busy, self._ours, self._at = _busy_seconds(), _our_seconds(), time.monotonic()

    def share(self) -> float:
        """Of all cores' time; our children count as ours once they have ended."""
        theirs = (_busy_seconds() - self._busy) - (_our_seconds() - self._ours)
        return max(0.0, theirs / (time.monotonic() - self._at) / (os.cpu_count() or 1))


def _busy_seconds() -> float:
    """What all processes together have used, from the first line of /proc/stat."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def _our_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def percentile(figures: Sequence[float], share: float) -> float:
    """The figure that this share of all does not exceed (nearest rank)."""
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
