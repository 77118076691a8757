"""What all processes of one test run must know of a recording: whether it existed when its first test began.

Tests that share a recording are treated alike, also if pytest-xdist runs them in several processes: the first of them
may have recorded what the next one finds.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_EXISTED, _NEW = "existed", "new"


class FirstUse:
    """A small file in a folder that the processes of the run share."""

    def __init__(self, folder: Path, recording: Path) -> None:
        self._recording = recording
        self._file = folder / hashlib.sha256(str(recording).encode()).hexdigest()[:32]

    def existed(self, forget: Callable[[], None] | None) -> bool:
        """Whether the recording existed at its first use in this run; before it looks, the first use calls `forget`."""
        with self.lock() as file:
            if not (found := file.read()):
                if forget is not None:
                    forget()
                found = _EXISTED if self._recording.exists() else _NEW
                file.write(found)
        return found == _EXISTED

    @contextmanager
    def lock(self) -> Iterator[IO[str]]:
        """Hold the lock of the recording, which one process can have at a time. It ends with the process."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file
