"""A SQLite file that is cut or overwritten while it is open, or whose log is.

SQLite finds out late: it reads what it has in memory, and the next checkpoint writes over what is left. So the sizes of
the file and its log are compared before and after each transaction. No other look at them is possible: to open and
close a file by another way than SQLite's takes SQLite's locks away from the whole process
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
from recorder.storage.dialects.handle import Handle, identity

#: A file that is open has these beside it.
_COMPANIONS = ("-wal", "-shm")
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Reading beyond the end of a file; an error of the disk itself has other codes.
_SHORT = sqlite3.SQLITE_IOERR_SHORT_READ
#: What only an empty file has to hold, so that SQLite does not take its log for somebody else's and delete it.
_ONE_PAGE = 512


def tells_of_damage(error: BaseException) -> bool:
    """Whether SQLite found a page that cannot be, or none where one has to be."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code == _SHORT or code & 0xFF in _BROKEN


class Sizes:
    """How long the file and its log were last."""

    def __init__(self, path: Path) -> None:
        self._paths = (str(path), f"{path}-wal")
        self._seen = (0, 0)
        #: Whether the file became shorter; whether its log did.
        self.file_shrank = self.log_shrank = False

    def begin(self) -> None:
        """The file was opened just now."""
        self._seen = (0, 0)
        self.file_shrank = self.log_shrank = False

    def look(self) -> None:
        """Compare with the last look."""
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
    """Whether a file that became shorter has fewer pages than it says; others were made smaller by VACUUM."""
    size = _size(str(path))
    if not size:
        return True  # and SQLite would delete its log
    try:
        # Without the log, and without a lock.
        with closing(Handle(f"file:{quote(str(path))}?immutable=1", path=path, uri=True)) as connection:
            [(page_size,)] = connection.execute("PRAGMA page_size").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        if not tells_of_damage(error):
            raise
        return True
    return bool(size % page_size)


class LogIndex:
    """What SQLite keeps in shared memory about the log: how long it is, and how much of it is in the file already."""

    #: Of the header, which is there twice: the size of a page, and the last frame; then what is in the file already.
    #: https://sqlite.org/walformat.html#the_wal_index_header
    _FORMAT = struct.Struct("=14xHI28x 14xHI28x I")
    #: Bytes before the first frame of the log, and before each page of it.
    _HEAD, _FRAME = 32, 24

    def __init__(self, path: Path) -> None:
        self._path = path
        # Never closed: that would take SQLite's locks away.
        self._open: dict[tuple[int, int], int] = {}

    def log_is_cut(self) -> bool:
        """Whether a log that became shorter lacks something that is not in the file yet; others were emptied by a
        program that had put all of it there."""
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
        # 65536 does not fit, and is written as 1.
        return (
            (page if page > 1 else 65536, last, in_file) if (page, last) == (page_again, last_again) else None
        )


class Damage:
    """What became of a damaged file: it is put aside with its log, and put back where that makes it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.aside = _free_name(path)
        self._keeper: Handle | None = None

    def set_aside(self) -> None:
        """Rename it and what stands beside it. SQLite's connection goes on to have it open, and is to be closed now.

        The last connection that is closed would write what is left of the log into the file, and delete it: so another
        one stays, which may not write.
        """
        if not _size(str(self.path)):
            os.truncate(self.path, _ONE_PAGE)
        self._keeper = Handle(f"file:{quote(str(self.path))}?mode=ro", path=self.path, uri=True)
        with suppress(sqlite3.DatabaseError):
            self._keeper.execute("SELECT count(*) FROM sqlite_master").fetchall()
        for end in ("", *_COMPANIONS):
            if os.path.exists(f"{self.path}{end}"):
                os.rename(f"{self.path}{end}", f"{self.aside}{end}")

    def put_back(self, is_whole: Callable[[sqlite3.Connection], bool]) -> bool:
        """Open it anew, so that SQLite reads all of its log once more; whether it is whole then, and has its name
        again."""
        if self._keeper is not None:
            self._keeper.close()
        try:
            with closing(Handle(str(self.aside), path=self.aside)) as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
                if not found or not is_whole(connection):
                    return False
                [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.DatabaseError:
            return False
        if busy or self.path.exists():
            return False
        os.rename(self.aside, self.path)
        return True

    def words(self) -> str:
        """Where it is, for messages."""
        return f"It is kept as {self.aside}, and what comes now goes into a new file"


def _free_name(path: Path) -> Path:
    """Beside the file, and of no other one."""
    for number in range(1, 1000):
        found = path.with_name(f"{path.name}.damaged-{number}")
        if not any(os.path.exists(f"{found}{end}") for end in ("", *_COMPANIONS)):
            return found
    raise StoreError(f"{path} is damaged, and so were 999 before it; move {path.name}.damaged-* away")
