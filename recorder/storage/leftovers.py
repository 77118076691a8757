"""What is left beside a SQLite file: damaged files, parts of exports, a log that nobody has open."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["damaged", "export", "log"]

#: The name of an export that is being written (`recorder/export/files.py`), and so left by one that was killed.
_PART = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
#: An export that was changed less than so long ago may still be written (seconds).
_STILL_WRITTEN = 3600.0


class Leftover(NamedTuple):
    """A file that nothing uses any more."""

    path: Path
    #: damaged: a damaged database that was set aside. export: a part of an export that was killed. log: committed
    #: transactions that are not in the database file yet.
    kind: Kind
    bytes: int


def leftovers_of(path: Path, *, is_used: bool, at: float) -> list[Leftover]:
    """The leftovers beside a database file, sorted by path. `at` is now, as in `time.time()`. The log is one unless a
    process uses the file."""
    found = [Leftover(each, "damaged", _size(each)) for each in _damaged(path)]
    found += [Leftover(each, "export", _size(each)) for each in _parts(path.parent, at)]
    log = path.with_name(f"{path.name}-wal")
    if not is_used and _size(log):
        found.append(Leftover(log, "log", _size(log)))
    return sorted(found)


def _damaged(path: Path) -> Iterator[Path]:
    for each in path.parent.glob(f"{glob.escape(path.name)}.damaged-*"):
        if not each.name.endswith(("-wal", "-shm")):
            yield each


def _parts(folder: Path, at: float) -> Iterator[Path]:
    for each in folder.glob(".*.part"):
        try:
            is_old = each.stat().st_mtime < at - _STILL_WRITTEN
        except OSError:  # its export ended in between
            continue
        if is_old and _PART.fullmatch(each.name):
            yield each


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
