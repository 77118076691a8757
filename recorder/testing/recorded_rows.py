"""The rows of a text recording, merged by their keys and in a stable order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from recorder.export.format import Row
from recorder.storage.rows import (
    ROWS_OF_A_RUN,
    AnnotationRow,
    ContextMessageRow,
    ConversationRow,
    MessageRow,
    Producer,
    RunRow,
)


class RecordedRows:
    """Rows by key. Of two rows with one key the later one stays.

    They are iterated in the order of an export, so that a file changes only where rows are new. The processes that
    recorded are left out: a replay does not need them, and host names and process numbers are nobody's business.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._conversations: dict[str, ConversationRow] = {}
        self._context: dict[tuple[str, str], ContextMessageRow] = {}
        self._messages: dict[tuple[str, str], MessageRow] = {}
        #: Those of messages without a run.
        self._annotations: dict[tuple[str, str], AnnotationRow] = {}
        #: Each run with its segments, frames, gaps and annotations.
        self._runs: dict[str, tuple[RunRow, list[Row]]] = {}
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows in the order of an export: a run comes before its segments, frames, gaps and annotations."""
        rows_of_run: list[Row] = []
        for row in rows:
            if isinstance(row, RunRow):
                rows_of_run = []
                self._runs[row.id] = row._replace(producer_id=None), rows_of_run
            elif isinstance(row, AnnotationRow) and row.is_without_run:
                self._annotations[row.run_id, row.id] = row
            elif isinstance(row, ROWS_OF_A_RUN):
                rows_of_run.append(row)
            elif not isinstance(row, Producer):
                self._add_text(row)

    def _add_text(self, row: ConversationRow | ContextMessageRow | MessageRow) -> None:
        if isinstance(row, ConversationRow):
            self._conversations[row.id] = row
        elif isinstance(row, MessageRow):
            self._messages[row.conversation_id, row.id] = row
        else:
            self._context[row.conversation_id, row.id] = row

    def __iter__(self) -> Iterator[Row]:
        context = _by_conversation(sorted(self._context.values(), key=lambda row: (row.created_at, row.id)))
        messages = _by_conversation(sorted(self._messages.values(), key=lambda row: (row.position, row.id)))
        annotations = _by_conversation(row for _, row in sorted(self._annotations.items()))
        runs = _by_conversation(sorted((run for run, _ in self._runs.values()), key=_start))
        for id in sorted(self._conversations):
            yield self._conversations[id]
            yield from context.get(id, ())
            yield from messages.get(id, ())
            yield from annotations.get(id, ())
            for run in runs.get(id, ()):
                yield run
                yield from self._runs[run.id][1]


def _start(run: RunRow) -> Any:
    return run.started_at, run.id


def _by_conversation(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.conversation_id, []).append(row)
    return found
