"""A recording of a test as a text file: an export, which a test replays from a temporary database.

The file is only written if something was recorded, and then as a whole. Tests that share a file may run in several
processes: each adds its rows to those that the file has at that moment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path

from recorder.errors import ConfigError, StoreError
from recorder.export import export
from recorder.export.files import reading, writing
from recorder.export.format import Row, read, write
from recorder.replay import Replay
from recorder.testing.recorded_rows import RecordedRows
from recorder.testing.scratch_database import count_rows, create, fill

#: Returns a context manager that holds the lock of a recording.
Lock = Callable[[], AbstractContextManager[object]]

#: Characters of a file name that mean something else in a database URL, and others of that kind.
_NOT_IN_URLS = re.compile(r"[^\w.-]+")

#: Says in the header where the rows are from. The database was a temporary file.
_SOURCE = "pytest"


class TextRecordings:
    """Opens text recordings; `folder` is for the temporary databases of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self._opened = 0
        #: The file that was read last, with its rows: tests that share a file mostly follow each other.
        self._last: tuple[Path, tuple[int, ...], RecordedRows] | None = None

    @contextmanager
    def replay(self, path: Path, lock: Lock | None) -> Iterator[Replay]:
        """A `Replay` of the file. What was recorded is added to the file at the end, while `lock()` is held.

        Without a lock the file never changes. Raises `ConfigError` and `StoreError` for a file that cannot be read.
        """
        self._opened += 1
        database = self._folder / f"{self._opened}-{_NOT_IN_URLS.sub('_', path.stem)}.db"
        self._load(path, database, records=lock is not None)
        try:
            before = count_rows(database)
            with Replay(f"sqlite:///{database}") as replay:
                replay.name = str(path)
                yield replay
            if lock is not None and count_rows(database) != before:
                with lock():
                    _add(path, database)
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                database.with_name(database.name + end).unlink(missing_ok=True)

    def _load(self, path: Path, database: Path, *, records: bool) -> None:
        """Make the database. If there is no file and nothing is recorded, there is no database either."""
        if not (records or path.exists()):
            return
        if not self._template.exists():
            create(self._template)
        fill(self._template, database, self._rows(path) if path.exists() else ())

    def _rows(self, path: Path) -> RecordedRows:
        status = path.stat()
        version = status.st_ino, status.st_size, status.st_mtime_ns
        if self._last is None or self._last[:2] != (path, version):
            self._last = path, version, RecordedRows(_rows_of(path))
        return self._last[2]


def _add(path: Path, database: Path) -> None:
    """Add the rows of the database to the file. The rows of a run that still streams are left out."""
    rows = RecordedRows(_rows_of(path) if path.exists() else ())
    recorded = BytesIO()
    export(f"sqlite:///{database}", recorded)
    recorded.seek(0)
    rows.add(read(recorded)[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as write_text:
        for line in write(rows, source=_SOURCE):
            write_text(line)


def _rows_of(path: Path) -> list[Row]:
    try:
        with reading(path) as source:
            return list(read(source.lines)[1])
    except (ConfigError, StoreError) as error:
        raise type(error)(
            f"{os.path.relpath(path)}: {error}. This file is the recording of a test: restore it from version control, "
            "or record it again with pytest --record-mode=all"
        ) from error
