"""Reads an export from a file into a database."""

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
from recorder.export.merge_rows import RowMerger
from recorder.storage.blocking import BlockingStore
from recorder.storage.failures import error_text
from recorder.storage.rows import ROWS_OF_A_RUN, FrameRow, RunRow, SegmentRow
from recorder.storage.store_interface import Conflict

#: The most that is in memory (bytes of text and frames, and rows). A longer run is stored in several parts of one
#: transaction.
_BATCH_BYTES = 2 * 2**20
_BATCH_ROWS = 2_000
#: Messages of one transaction of the index for the search.
_INDEXED = 500


@dataclass(slots=True)
class Imported:
    """The result of an import."""

    header: Header
    #: What was stored.
    new: Counts = field(default_factory=Counts)
    #: What the database had already.
    there: Counts = field(default_factory=Counts)


def import_(url: str, file: File, *, progress: Progress | None = None) -> Imported:
    """Store an export: a path, or a file open for text or bytes; gzip is decompressed.

    Rows that the database has already are only counted. So the same import twice changes nothing, and an import that
    was stopped can be continued. A run is stored completely or not at all. A missing database is created. Raises
    `Conflict` for a row that is stored with other values, `ConfigError` for a file that is not an export or a newer
    one, `StoreError` for a damaged one; the runs before the damage are stored.
    """
    with reading(file) as source:
        with _with_file_name(file):
            header, rows = read(source.lines)  # reads the header before a database is created
        with closing(_Importer(url, header, source, progress)) as importer:
            importer.store(_rows_with_file_name(file, rows))
    return importer.done


@contextmanager
def _with_file_name(file: File) -> Iterator[None]:
    """Put the name of the file into the message of an error."""
    try:
        yield
    except (ConfigError, StoreError) as error:
        if isinstance(file, (str, os.PathLike)):
            raise type(error)(f"{os.fspath(file)}: {error}") from error
        raise


def _rows_with_file_name(file: File, rows: Iterator[Row]) -> Iterator[Row]:
    while True:
        with _with_file_name(file):
            row = next(rows, None)
        if row is None:
            return
        yield row


class _Importer:
    """Stores rows in transactions of complete runs."""

    def __init__(self, url: str, header: Header, source: Source, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self.done = Imported(header)
        self._rows: list[Row] = []
        #: Size of `_rows`, in bytes.
        self._bytes = 0
        self._stack: AsyncExitStack | None = None
        self._merger: RowMerger | None = None
        self._database = BlockingStore(url)
        self._store = self._database.store

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def store(self, rows: Iterable[Row]) -> None:
        """Store all rows."""
        try:
            try:
                self._store_rows(rows)
                while self._database.run(self._store.index_messages(_INDEXED)):
                    pass
            except StoreError:
                self._store_complete_runs()
                raise
        except self._store.errors as error:
            raise StoreError(self._stopped(f"The database says: {error_text(error)}")) from error
        except Conflict:
            raise
        except StoreError as error:
            raise StoreError(self._stopped(str(error))) from error
        finally:
            self._roll_back()

    def _store_rows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if self._is_full():
                if isinstance(row, ROWS_OF_A_RUN):
                    self._flush()  # a long run: its transaction goes on
                else:
                    self._commit_or_repeat()
            self._rows.append(row)
            self._bytes += _size(row)
        self._commit_or_repeat()

    def _store_complete_runs(self) -> None:
        """After a damaged line: store the rows in memory without the last run, which may be incomplete."""
        last = [place for place, row in enumerate(self._rows) if isinstance(row, RunRow)][-1:]
        if self._merger is None and last:
            del self._rows[last[0] :]
            self._commit()

    def _is_full(self) -> bool:
        return self._bytes >= _BATCH_BYTES or len(self._rows) >= _BATCH_ROWS

    def _flush(self) -> None:
        rows, self._rows, self._bytes = self._rows, [], 0
        self._database.run(self._merge(rows))
        if self._progress is not None:
            self._progress(self._source.position(), self._source.size)

    async def _merge(self, rows: list[Row]) -> None:
        if self._merger is None:
            self._stack = AsyncExitStack()
            connection = await self._stack.enter_async_context(self._store.transaction())
            self._merger = RowMerger(connection, self._store.dialect)
        await self._merger.add(rows)

    def _commit_or_repeat(self) -> None:
        """Commit; once more if a fork ended the transaction and all of its rows are in memory."""
        rows, size, repeatable = self._rows, self._bytes, self._merger is None
        try:
            self._commit()
        except self._store.errors as error:
            if not repeatable or not self._store.dialect.ended_by_fork(error):
                raise
            self._roll_back()
            self._rows, self._bytes = rows, size
            self._commit()

    def _commit(self) -> None:
        if self._rows:
            self._flush()
        stack, merger = self._stack, self._merger
        if stack is None or merger is None:
            return
        self._database.run(self._end(stack, merger))
        self._stack = self._merger = None
        for name in Counts.__slots__:
            for total, part in ((self.done.new, merger.new), (self.done.there, merger.existing)):
                setattr(total, name, getattr(total, name) + getattr(part, name))

    async def _end(self, stack: AsyncExitStack, merger: RowMerger) -> None:
        await merger.announce()
        await stack.aclose()

    def _roll_back(self) -> None:
        """Roll back an unfinished transaction."""
        stack, self._stack, self._merger = self._stack, None, None
        if stack is not None:
            self._database.run(_cancel(stack))

    def _stopped(self, why: str) -> str:
        runs = self.done.new.runs + self.done.there.runs
        return (
            f"{why} ({runs} runs before it are stored; an import of the mended file leaves them as they are)"
        )


async def _cancel(stack: AsyncExitStack) -> None:
    await stack.__aexit__(_Stopped, _Stopped(), None)


class _Stopped(Exception):
    """Passed to a transaction to roll it back."""


def _size(row: Any) -> int:
    if isinstance(row, SegmentRow):
        return len(row.deltas)
    if isinstance(row, FrameRow):
        return len(row.data)
    return sum(len(value) for value in row if isinstance(value, str)) if isinstance(row, tuple) else 100
