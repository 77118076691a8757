"""Detects that another program cut or overwrote an open SQLite file or its write-ahead log.

SQLite notices this late: it reads pages from its cache, and the next checkpoint overwrites the rest of the file. So the
sizes of the file and of its log are compared before and after each transaction. The file cannot be inspected in another
way: opening and closing it outside SQLite releases SQLite's locks in the whole process
(https://sqlite.org/howtocorrupt.html, "Posix advisory locks canceled by a separate thread doing close()").
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from recorder.errors import StoreError
from recorder.storage.fork_safe import Handle, identity

#: Suffixes of the two files that SQLite keeps beside an open file: the log and its index.
_COMPANIONS = ("-wal", "-shm")
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: A read beyond the end of the file. Errors of the disk itself have other codes.
_SHORT = sqlite3.SQLITE_IOERR_SHORT_READ
#: An empty file is extended to this size (bytes); beside an empty file SQLite deletes the log as a foreign one.
_ONE_PAGE = 512


def tells_of_damage(error: BaseException) -> bool:
    """Whether SQLite found a corrupt page, or the end of the file where a page has to be.

    A damaged index of the search is neither.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    return code == _SHORT or (code & 0xFF in _BROKEN and code != sqlite3.SQLITE_CORRUPT_VTAB)


class Sizes:
    """The sizes of the file and its log, as they were at the last look."""

    def __init__(self, path: Path) -> None:
        self._paths = (str(path), f"{path}-wal")
        self._seen = (0, 0)
        #: Whether the file, or its log, became shorter between two looks.
        self.file_shrank = self.log_shrank = False

    def begin(self) -> None:
        """Forget the earlier sizes. Called after the file was opened."""
        self._seen = (0, 0)
        self.file_shrank = self.log_shrank = False

    def look(self) -> None:
        """Compare the sizes with those of the last look."""
        file, log = _size(self._paths[0]), _size(self._paths[1])
        self.file_shrank = self.file_shrank or file < self._seen[0]
        self.log_shrank = self.log_shrank or log < self._seen[1]
        self._seen = (file, log)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def is_cut(path: Path) -> bool:
    """Whether a file that became shorter is cut; VACUUM makes files smaller, too, and leaves complete ones."""
    size = _size(str(path))
    if not size:
        return True
    try:
        # `immutable`: SQLite reads neither the log nor takes a lock.
        with closing(Handle(f"file:{quote(str(path))}?immutable=1", path=path, uri=True)) as connection:
            [(page_size,)] = connection.execute("PRAGMA page_size").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        if not tells_of_damage(error):
            raise
        return True
    return bool(size % page_size)


class LogIndex:
    """SQLite's index of the log in shared memory. It tells the log's length and how much of it is checkpointed."""

    #: The page size and the last frame, from both copies of the header; then the number of checkpointed frames.
    #: https://sqlite.org/walformat.html#the_wal_index_header
    _FORMAT = struct.Struct("=14xHI28x 14xHI28x I")
    #: Bytes of the log's header, and of the header of each frame.
    _HEAD, _FRAME = 32, 24

    def __init__(self, path: Path) -> None:
        self._path = path
        # File descriptors by device and inode. Never closed: closing one would release SQLite's locks.
        self._open: dict[tuple[int, int], int] = {}

    def log_is_cut(self) -> bool:
        """Whether a log that became shorter lacks frames that are not checkpointed.

        A program that has checkpointed the whole log may truncate it; then nothing is lost.
        """
        found = self._read()
        if found is None:
            return False
        page, last, in_file = found
        lacks = _size(f"{self._path}-wal") < self._HEAD + last * (self._FRAME + page)
        return in_file < last and lacks and found == self._read()

    def _read(self) -> tuple[int, int, int] | None:
        name = f"{self._path}-shm"
        key = identity(name)
        if key is None:
            return None
        if key not in self._open:
            self._open[key] = os.open(name, os.O_RDONLY)
        os.lseek(self._open[key], 0, os.SEEK_SET)
        data = os.read(self._open[key], self._FORMAT.size)
        if len(data) < self._FORMAT.size:
            return None
        page, last, page_again, last_again, in_file = self._FORMAT.unpack(data)
        # A page size of 65536 does not fit into 16 bits and is written as 1.
        return (
            (page if page > 1 else 65536, last, in_file) if (page, last) == (page_again, last_again) else None
        )


class DamagedFile:
    """A damaged file. It is renamed together with its log, and renamed back if both together are complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.aside = _free_name(path)
        self._keeper: Handle | None = None

    def set_aside(self) -> None:
        """Rename the file, its log and the log's index. Close the connection that has the file open afterwards.

        The last connection that closes would checkpoint the rest of the log and delete it. So a read-only connection is
        opened here and stays open.
        """
        if not _size(str(self.path)):
            os.truncate(self.path, _ONE_PAGE)
        self._keeper = Handle(f"file:{quote(str(self.path))}?mode=ro", path=self.path, uri=True)
        with suppress(sqlite3.DatabaseError):
            self._keeper.execute("SELECT count(*) FROM sqlite_master").fetchall()
        for end in ("", *_COMPANIONS):
            if os.path.exists(f"{self.path}{end}"):
                os.rename(f"{self.path}{end}", f"{self.aside}{end}")

    def put_back(self, is_complete: Callable[[sqlite3.Connection], bool]) -> bool:
        """Open the file again, so that SQLite reads the whole log; rename it back if it is complete then.

        Returns whether it was renamed.
        """
        if self._keeper is not None:
            self._keeper.close()
        try:
            with closing(Handle(str(self.aside), path=self.aside)) as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
                if not found or not is_complete(connection):
                    return False
                [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.DatabaseError:
            return False
        if busy or self.path.exists():
            return False
        os.rename(self.aside, self.path)
        return True

    def location(self) -> str:
        """A sentence that says where the damaged file is."""
        return f"The damaged file is kept as {self.aside}; from now on a new file is written"


def _free_name(path: Path) -> Path:
    """A name beside the file that no other file has."""
    for number in range(1, 1000):
        found = path.with_name(f"{path.name}.damaged-{number}")
        if not any(os.path.exists(f"{found}{end}") for end in ("", *_COMPANIONS)):
            return found
    raise StoreError(
        f"{path} is damaged, and 999 damaged files are kept beside it; move {path.name}.damaged-* away"
    )
