"""Writes recordings from a database into a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from recorder.errors import ConfigError
from recorder.export.counts import Counts, Progress
from recorder.export.ended_runs import EndedRuns
from recorder.export.files import File, writing
from recorder.export.format import Row, write
from recorder.export.row_reader import (
    CONVERSATIONS,
    MESSAGES,
    RUNS,
    ContextKey,
    MessageKey,
    PagedQueue,
    RowReader,
    RunKey,
    TableRows,
    batches,
)
from recorder.storage.dialects import file_of, masked, parse_url
from recorder.storage.request_input import sent_ids
from recorder.storage.rows import Producer, RunRow

#: `progress` is called once for so many lines.
_TELL_EVERY = 256


@dataclass(slots=True)
class Exported:
    """The result of an export."""

    #: What the file holds.
    written: Counts = field(default_factory=Counts)
    #: Ids of the runs that still stream; they are not in the file.
    left_out: list[str] = field(default_factory=list)


def export(
    url: str, file: File, ids: Sequence[str] | None = None, *, progress: Progress | None = None
) -> Exported:
    """Write recordings into a file: a path (compressed if it ends in `.gz`), or a file open for text or bytes.

    `ids` are ids of conversations and runs, or their beginnings; None is everything. A conversation is written with all
    of its runs, a run with its prompt and replies. A run that still streams is left out; a run whose process is dead is
    written as `interrupted`. Memory use does not grow with the length of a run. Raises `NotFound`, `ConfigError`,
    `StoreError`; an existing file is then unchanged.
    """
    _refuse_itself(url, file)
    with closing(RowReader(url)) as reader:
        wanted = None if ids is None else wanted_runs(reader, ids)
        total = reader.tokens(None if wanted is None else list(wanted)) if progress else None
        exporter = _Exporter(reader, wanted)
        with writing(file) as write_text:
            for number, line in enumerate(write(exporter.rows(), source=masked(url))):
                write_text(line)
                if progress is not None and number % _TELL_EVERY == 0:
                    progress(exporter.done.written.tokens, total)
        if progress is not None:
            progress(exporter.done.written.tokens, exporter.done.written.tokens)
    return exporter.done


def _refuse_itself(url: str, file: File) -> None:
    parsed = parse_url(url)
    if not isinstance(file, (str, os.PathLike)) or parsed.drivername != "sqlite":
        return
    path = str(file_of(parsed))
    for own in (path, path + "-wal", path + "-shm"):
        if os.path.exists(own) and os.path.exists(file) and os.path.samefile(own, file):
            raise ConfigError(f"{os.fspath(file)} is the database itself; name another file")


def wanted_runs(reader: RowReader, ids: Sequence[str]) -> dict[str, set[str] | None]:
    """Conversation -> the ids of its runs to write; None for all of its runs."""
    wanted: dict[str, set[str] | None] = {}
    for id in ids:
        found = reader.find(id)
        if found.kind == "conversation":
            wanted[found.id] = None
        elif (runs := wanted.setdefault(reader.conversation_of(found.id), set())) is not None:
            runs.add(found.id)
    return dict(sorted(wanted.items()))


class _ReadRun(NamedTuple):
    """A run that was read, and the tables that its rows are read from."""

    conversation_id: str
    run: RunRow
    tables: Sequence[TableRows]


class _Exporter:
    """Yields the rows in the order of an export, and counts them."""

    def __init__(self, reader: RowReader, wanted: dict[str, set[str] | None] | None) -> None:
        self._reader = reader
        self._wanted = wanted
        self._runs = EndedRuns(reader)
        #: Ids of producers that were written, or are not in the database.
        self._written_producers: set[str] = set()
        self.done = Exported(left_out=self._runs.left_out)

    def rows(self) -> Iterator[Row]:
        """Every row of the export."""
        ids = self._reader.conversation_ids() if self._wanted is None else iter(self._wanted)
        for page in batches(ids, CONVERSATIONS):
            for row in self._page(page):
                self.done.written.add(row)
                yield row

    def _page(self, ids: Sequence[str]) -> Iterator[Row]:
        found = self._reader.conversations(ids)
        ids = [row.id for row in found]
        # Runs are read before messages. So if a run has ended, its replies are among the messages.
        keys = [
            key
            for run_keys in self._reader.run_keys(ids).values()
            for key in run_keys
            if self._is_wanted(key)
        ]
        runs: PagedQueue[_ReadRun] = PagedQueue(keys, RUNS, self._read)
        messages = PagedQueue(self._messages(ids), MESSAGES, self._reader.messages)
        context = PagedQueue(self._context(ids), MESSAGES, self._reader.context)
        for conversation in found:
            yield conversation
            yield from context.take(conversation.id)
            yield from messages.take(conversation.id)
            yield from self._annotations(conversation.id)
            for read in runs.take(conversation.id):
                yield from self._producer(read.run.producer_id)
                yield read.run
                for table in read.tables:
                    yield from table.of_run(read.run.id)

    def _is_wanted(self, key: RunKey) -> bool:
        only = None if self._wanted is None else self._wanted[key.conversation_id]
        return only is None or key.id in only

    def _messages(self, ids: Sequence[str]) -> Iterator[MessageKey]:
        """The messages to write: all of a conversation, or the prompts and replies of the chosen runs."""
        for id, keys in self._reader.message_keys(ids).items():
            only = None if self._wanted is None else self._wanted[id]
            yield from keys if only is None else self._of_runs(keys, only)

    def _annotations(self, conversation_id: str) -> Iterator[Row]:
        """Those of messages without a run; of chosen runs, those of the messages that are written."""
        only = None if self._wanted is None else self._wanted[conversation_id]
        keys = [] if only is None else list(self._messages([conversation_id]))
        return self._reader.annotations(conversation_id, None if only is None else [key.id for key in keys])

    def _context(self, ids: Sequence[str]) -> Iterator[ContextKey]:
        """The context messages to write: all of a conversation, or those that the chosen runs were sent."""
        for id, keys in self._reader.context_keys(ids).items():
            only = None if self._wanted is None else self._wanted[id]
            sent = (
                None
                if only is None
                else {each for run in self._reader.runs(sorted(only)) for each in sent_ids(run)}
            )
            yield from (key for key in keys if sent is None or key.id in sent)

    def _of_runs(self, keys: Sequence[MessageKey], only: set[str]) -> Iterator[MessageKey]:
        parents = {key.id: key.parent_id for key in keys}
        ends = [key.id for key in keys if key.run_id in only]
        for run in self._reader.runs(sorted(only)):
            ends += [id for id in (run.prompt_message_id, run.response_message_id) if id is not None]
            ends += [id for id in sent_ids(run) if id in parents]
        found: set[str] = set()
        for end in ends:
            at: str | None = end
            while at is not None and at not in found:
                found.add(at)
                at = parents.get(at)
        return (key for key in keys if key.id in found)

    def _read(self, keys: Sequence[RunKey]) -> Iterator[_ReadRun]:
        """The runs that have ended, with their tables."""
        ended = self._runs.ended(keys)
        tables = self._reader.of_runs([key.id for key in ended]) if ended else []
        for run in self._runs.read(ended):
            yield _ReadRun(run.conversation_id, run, tables)

    def _producer(self, id: str | None) -> Iterator[Producer]:
        if id is None or id in self._written_producers:
            return
        self._written_producers.add(id)
        if (producer := self._runs.producer(id)) is not None:
            yield producer
