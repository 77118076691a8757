"""Out of a file into a database."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from recorder.errors import ConfigError, StoreError
from recorder.export.counts import Counts, Progress
from recorder.export.files import File, Source, reading
from recorder.export.format import Header, Row, read
from recorder.export.merge_rows import Adding
from recorder.storage.blocking import BlockingStore
from recorder.storage.dialects import error_text
from recorder.storage.rows import AnnotationRow, FrameRow, GapRow, RunRow, SegmentRow
from recorder.storage.store import Conflict

#: Rows that stand behind the run they belong to.
_OF_A_RUN = (SegmentRow, FrameRow, GapRow, AnnotationRow)
#: What one transaction stores, and what is in memory of a longer run (bytes of text and frames, and rows).
_BATCH_BYTES = 2 * 2**20
_BATCH_ROWS = 2_000


@dataclass(slots=True)
class Imported:
    """What was read."""

    header: Header
    #: What is stored now and was not, and what was there already.
    new: Counts = field(default_factory=Counts)
    there: Counts = field(default_factory=Counts)


def import_(url: str, file: File, *, progress: Progress | None = None) -> Imported:
    """Store what an export holds: a path, or a file that is open for text or bytes; gzip is unpacked.

    What is there already is left as it is and counted, so that the same import again changes nothing, and one that
    was broken off goes on. A run is stored as a whole or not at all. A database that is not there is created. Raises
    `Conflict` for a row that is there with another content, `ConfigError` for a file that is no export or a newer
    one, `StoreError` for one that is damaged; the runs before it are stored.
    """
    with reading(file) as source:
        with _named(file):
            header, rows = read(source.lines)  # before a database is created for it
        with closing(_Back(url, header, source, progress)) as back:
            back.store(_named_rows(file, rows))
    return back.done


@contextmanager
def _named(file: File) -> Iterator[None]:
    """What is wrong with a file is told with its name."""
    try:
        yield
    except (ConfigError, StoreError) as error:
        if isinstance(file, (str, os.PathLike)):
            raise type(error)(f"{os.fspath(file)}: {error}") from error
        raise


def _named_rows(file: File, rows: Iterator[Row]) -> Iterator[Row]:
    while True:
        with _named(file):
            row = next(rows, None)
        if row is None:
            return
        yield row


class _Back:
    """Transactions of whole runs, one after the other."""

    def __init__(self, url: str, header: Header, source: Source, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self.done = Imported(header)
        self._waiting: list[Row] = []
        #: Of the rows that wait.
        self._bytes = 0
        self._stack: AsyncExitStack | None = None
        self._adding: Adding | None = None
        self._database = BlockingStore(url)
        self._store = self._database.store

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def store(self, rows: Iterable[Row]) -> None:
        """Store them all."""
        try:
            try:
                self._take(rows)
            except StoreError:
                self._keep_whole_runs()
                raise
        except self._store.errors as error:
            raise StoreError(self._broken_off(f"The database says: {error_text(error)}")) from error
        except Conflict:
            raise
        except StoreError as error:
            raise StoreError(self._broken_off(str(error))) from error
        finally:
            self._roll_back()

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if self._is_full():
                if isinstance(row, _OF_A_RUN):
                    self._flush()  # a long run, of which more is to come
                else:
                    self._commit()
            self._waiting.append(row)
            self._bytes += _size(row)
        self._commit()

    def _keep_whole_runs(self) -> None:
        """Behind a damaged line: store what waits, but for the last run, which may be without its end."""
        last = [place for place, row in enumerate(self._waiting) if isinstance(row, RunRow)][-1:]
        if self._adding is None and last:
            del self._waiting[last[0] :]
            self._commit()

    def _is_full(self) -> bool:
        return self._bytes >= _BATCH_BYTES or len(self._waiting) >= _BATCH_ROWS

    def _flush(self) -> None:
        rows, self._waiting, self._bytes = self._waiting, [], 0
        self._database.run(self._add(rows))
        if self._progress is not None:
            self._progress(self._source.position(), self._source.size)

    async def _add(self, rows: list[Row]) -> None:
        if self._adding is None:
            self._stack = AsyncExitStack()
            connection = await self._stack.enter_async_context(self._store.transaction())
            self._adding = Adding(connection, self._store.dialect)
        await self._adding.add(rows)

    def _commit(self) -> None:
        if self._waiting:
            self._flush()
        stack, adding = self._stack, self._adding
        if stack is None or adding is None:
            return
        self._database.run(self._end(stack, adding))
        self._stack = self._adding = None
        for name in Counts.__slots__:
            for total, part in ((self.done.new, adding.new), (self.done.there, adding.there)):
                setattr(total, name, getattr(total, name) + getattr(part, name))

    async def _end(self, stack: AsyncExitStack, adding: Adding) -> None:
        await adding.announce()
        await stack.aclose()

    def _roll_back(self) -> None:
        """Leave a transaction that has not come to its end."""
        stack, self._stack = self._stack, None
        if stack is not None:
            self._database.run(_left(stack))

    def _broken_off(self, why: str) -> str:
        runs = self.done.new.runs + self.done.there.runs
        return (
            f"{why} ({runs} runs before it are stored; an import of the mended file leaves them as they are)"
        )


async def _left(stack: AsyncExitStack) -> None:
    await stack.__aexit__(_BrokenOff, _BrokenOff(), None)


class _BrokenOff(Exception):
    """What a transaction is told when it is left."""


def _size(row: Any) -> int:
    if isinstance(row, SegmentRow):
        return len(row.deltas)
    if isinstance(row, FrameRow):
        return len(row.data)
    return sum(len(value) for value in row if isinstance(value, str)) if isinstance(row, tuple) else 100
