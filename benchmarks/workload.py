"""What is streamed, and how a process measures itself."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Sequence
from pathlib import Path

from recorder.testing import song_pieces


def words(seed: int, count: int) -> list[str]:
    """Tokens as a model writes them, in a random order of that seed."""
    return random.Random(seed).choices(song_pieces(), k=count)


def cpu_seconds() -> float:
    """What this process has used of the processor, all its threads, the kernel's work for it included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def percentile(figures: Sequence[float], share: float) -> float:
    """The figure that this share of all does not exceed (nearest rank)."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def size_on_disk(database: str) -> int:
    """Bytes of a SQLite database, its journal files included."""
    return sum(file.stat().st_size for file in Path(database).parent.glob(Path(database).name + "*"))
