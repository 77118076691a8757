"""Out of a database into a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from recorder.config import INTERRUPTED_AFTER
from recorder.core.clock import now
from recorder.errors import ConfigError
from recorder.export.counts import Counts, Progress
from recorder.export.files import File, writing
from recorder.export.format import Row, write
from recorder.export.row_reader import (
    CONVERSATIONS,
    MESSAGES,
    RUNS,
    MessageKey,
    Pages,
    Queue,
    Rows,
    RunKey,
    parts,
)
from recorder.storage.dialects import file_of, masked, parse_url
from recorder.storage.liveness import is_dead
from recorder.storage.rows import INTERRUPTED, STREAMING, Producer, RunRow

#: So many rows between two words about the progress.
_TELL_EVERY = 256


@dataclass(slots=True)
class Exported:
    """What was written."""

    written: Counts = field(default_factory=Counts)
    #: Ids of runs that still stream and so are not in the file.
    left_out: list[str] = field(default_factory=list)


def export(
    url: str, file: File, ids: Sequence[str] | None = None, *, progress: Progress | None = None
) -> Exported:
    """Write what a database holds into a file: a path (`.gz` packs it), or a file that is open for text or bytes.

    `ids`, or the beginnings of ids, choose: of a conversation all of it, of a run what it was asked and what it said.
    A run that still streams is left out; one whose process is dead is written as `interrupted`. What is in memory
    does not grow with the length of a run. Raises `NotFound`, `ConfigError`, `StoreError`; a file of that name then
    stays as it was.
    """
    _refuse_itself(url, file)
    with closing(Pages(url)) as pages:
        wanted = None if ids is None else _wanted(pages, ids)
        total = pages.tokens(None if wanted is None else list(wanted)) if progress else None
        out = _Out(pages, wanted)
        with writing(file) as put:
            for number, line in enumerate(write(out.rows(), source=masked(url))):
                put(line)
                if progress is not None and number % _TELL_EVERY == 0:
                    progress(out.done.written.tokens, total)
        if progress is not None:
            progress(out.done.written.tokens, out.done.written.tokens)
    return out.done


def _refuse_itself(url: str, file: File) -> None:
    parsed = parse_url(url)
    if not isinstance(file, (str, os.PathLike)) or parsed.drivername != "sqlite":
        return
    path = str(file_of(parsed))
    for own in (path, path + "-wal", path + "-shm"):
        if os.path.exists(own) and os.path.exists(file) and os.path.samefile(own, file):
            raise ConfigError(f"{os.fspath(file)} is the database itself; name another file")


def _wanted(pages: Pages, ids: Sequence[str]) -> dict[str, set[str] | None]:
    """Which runs of which conversations; None for all."""
    wanted: dict[str, set[str] | None] = {}
    for given in ids:
        found = pages.find(given)
        if found.kind == "conversation":
            wanted[found.id] = None
        elif (runs := wanted.setdefault(pages.conversation_of(found.id), set())) is not None:
            runs.add(found.id)
    return dict(sorted(wanted.items()))


class _Read(NamedTuple):
    """A run that was read, and where its rows are."""

    conversation_id: str
    run: RunRow
    tables: Sequence[Rows]


class _Out:
    """The rows in the order of an export, counted as they go."""

    def __init__(self, pages: Pages, wanted: dict[str, set[str] | None] | None) -> None:
        self._pages = pages
        self._wanted = wanted
        #: Producers that were written, or are not there.
        self._named: set[str] = set()
        self.done = Exported()

    def rows(self) -> Iterator[Row]:
        """Every row that is wanted."""
        ids = self._pages.conversation_ids() if self._wanted is None else iter(self._wanted)
        for page in parts(ids, CONVERSATIONS):
            for row in self._page(page):
                self.done.written.add(row)
                yield row

    def _page(self, ids: Sequence[str]) -> Iterator[Row]:
        found = self._pages.conversations(ids)
        ids = [row.id for row in found]
        # The runs are looked at before the messages: what a run that is over has said is there.
        keys = [key for every in self._pages.run_keys(ids).values() for key in every if self._is_wanted(key)]
        runs: Queue[_Read] = Queue(keys, RUNS, self._read)
        messages = Queue(self._messages(ids), MESSAGES, self._pages.messages)
        for conversation in found:
            yield conversation
            yield from messages.of(conversation.id)
            for read in runs.of(conversation.id):
                yield from self._producer(read.run.producer_id)
                yield self._ended(read.run)
                for table in read.tables:
                    yield from table.of(read.run.id)

    def _is_wanted(self, key: RunKey) -> bool:
        only = None if self._wanted is None else self._wanted[key.conversation_id]
        return only is None or key.id in only

    def _messages(self, ids: Sequence[str]) -> Iterator[MessageKey]:
        """The messages to write: all of a conversation, or what some of its runs were asked and what they said."""
        for id, keys in self._pages.message_keys(ids).items():
            only = None if self._wanted is None else self._wanted[id]
            yield from keys if only is None else self._of_runs(keys, only)

    def _of_runs(self, keys: Sequence[MessageKey], only: set[str]) -> Iterator[MessageKey]:
        parents = {key.id: key.parent_id for key in keys}
        ends = [key.id for key in keys if key.run_id in only]
        for run in self._pages.runs(sorted(only)):
            ends += [id for id in (run.prompt_message_id, run.response_message_id) if id is not None]
        found: set[str] = set()
        for end in ends:
            at: str | None = end
            while at is not None and at not in found:
                found.add(at)
                at = parents.get(at)
        return (key for key in keys if key.id in found)

    def _read(self, keys: Sequence[RunKey]) -> Iterator[_Read]:
        """The runs that are over, with their rows within reach."""
        known = {key.id: key for key in keys if self._is_over(key)}
        self.done.left_out += [key.id for key in keys if key.id not in known]
        tables = self._pages.of_runs(list(known)) if known else []
        for run in self._pages.runs(list(known)):
            if run.status == known[run.id].status:
                yield _Read(run.conversation_id, run, tables)
            else:  # its process was not dead: it has sealed it now
                self.done.left_out.append(run.id)

    def _is_over(self, key: RunKey) -> bool:
        if key.status != STREAMING:
            return True
        producer = self._producer_of(key.producer_id)
        return producer is not None and is_dead(producer, now(), INTERRUPTED_AFTER)

    def _ended(self, run: RunRow) -> RunRow:
        """A run whose process is dead as whoever opens the database next will mark it."""
        producer = self._producer_of(run.producer_id) if run.status == STREAMING else None
        if producer is None:
            return run
        return run._replace(status=INTERRUPTED, ended_at=producer.heartbeat_at)

    def _producer(self, id: str | None) -> Iterator[Producer]:
        if id is None or id in self._named:
            return
        self._named.add(id)
        if (producer := self._producer_of(id)) is not None:
            yield producer

    def _producer_of(self, id: str | None) -> Producer | None:
        return None if id is None else self._pages.producer(id)
