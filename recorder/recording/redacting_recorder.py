"""A recorder that redacts what is recorded before it is queued, and before listeners get it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from recorder.config import Config
from recorder.messages import BaseMessage
from recorder.recording.buffer import OpenRun
from recorder.recording.recorder import Recorder
from recorder.recording.redacting_queue import RedactingQueue
from recorder.recording.stats import Stats
from recorder.redaction.redaction import MatchCounts, Redaction, redaction_from
from recorder.redaction.run_redaction import RunRedaction
from recorder.redaction.scans import WITHHELD, shown
from recorder.storage.rows import AnnotationRow, RunEnd, RunStart
from recorder.storage.store_interface import Store
from recorder.wire.request_hash import input_hash

log = logging.getLogger("recorder")

Result = TypeVar("Result")


def recorder_for(url: str | None, config: Config, store: Store | None) -> Recorder:
    """The recorder for these options: with `redact` one that redacts."""
    redaction = redaction_from(config.redact)
    if redaction is None:
        return Recorder(url, config, store=store)
    return RedactingRecorder(url, config, store=store, redaction=redaction)


class RedactingRecorder(Recorder):
    """As `Recorder`. What it stores has no match of `redact`."""

    _queue_type = RedactingQueue

    def __init__(
        self, url: str | None, config: Config, *, store: Store | None = None, redaction: Redaction
    ) -> None:
        #: What it replaces.
        self._redaction = redaction
        super().__init__(url, config, store=store)

    def start(self, key: int, start: RunStart, started_us: int | None = None) -> OpenRun:
        """As `Recorder.start`. The request is redacted, and its hash is made of what is left."""
        start.redacts = run = RunRedaction(self._redaction)
        self._safely(_redact_start, start, run, instead=_without_content)
        self._redact_hash(start)
        return super().start(key, start, started_us)

    def end(self, key: int, run: OpenRun, end: RunEnd) -> None:
        """As `Recorder.end`."""
        if (redacts := run.start.redacts) is not None and not run.ended:
            self._safely(_redact_end, end, redacts, instead=_without_replies)
        super().end(key, run, end)

    def add(
        self, conversation_id: str, user_id: str | None, messages: Sequence[BaseMessage] = (), *,
        details: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """As `Recorder.add`."""
        run, given = RunRedaction(self._redaction), (details or {}).items()
        new = {
            name: run.text(text) or "" if name == "title" else run.json(text) or "" for name, text in given
        }
        super().add(conversation_id, user_id, run.messages(messages), details=new)

    def redacted(self, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """The messages as `add` stores them, to be compared with what is stored."""
        return RunRedaction(self._redaction).messages(messages)

    def annotate(self, row: AnnotationRow) -> None:
        """As `Recorder.annotate`."""
        run = RunRedaction(self._redaction)
        name, label = run.text(row.name) or "", run.text(row.label)
        super().annotate(row._replace(name=name, label=label, data=run.json(row.data)))

    def add_request(
        self, start: RunStart, wire: str | None, input_hash: str | None, mask: Any, host: str | None
    ) -> None:
        """As `Recorder.add_request`."""
        super().add_request(start, wire, input_hash, mask, host)
        self._redact_hash(start)

    def _redact_hash(self, start: RunStart) -> None:
        """Compute the hash of a run's request without what is redacted in it. Without its body there is no hash: the
        given one is that of the text that is redacted."""
        body = start.mask.body if start.mask is not None else None
        counts = MatchCounts(self._redaction)
        if not start.input_hash:
            return
        redacted = self._safely(self._redaction.value, body, counts, instead=_nothing)
        start.input_hash = input_hash(redacted) if isinstance(redacted, Mapping) else None

    def stats(self) -> Stats:
        """As `Recorder.stats`, with the texts that could not be redacted."""
        return replace(super().stats(), withheld=self._redaction.failures)

    def _safely(self, step: Callable[..., Result], *given: Any, instead: Callable[..., Result]) -> Result:
        """Call `step`; if it fails, `instead`, which leaves out the content."""
        try:
            return step(*given)
        except Exception as error:  # an object of the application, or a bug in recorder
            self._redaction.note_failure(f"{type(error).__name__} in {getattr(step, '__name__', step)}")
            return instead(*given)


def _redact_start(start: RunStart, run: RunRedaction) -> None:
    start.messages = run.messages(start.messages)
    start.request, start.tags, start.metadata = map(run.json, (start.request, start.tags, start.metadata))


def _without_content(start: RunStart, run: RunRedaction) -> None:
    start.messages = [_withheld(each) for each in start.messages]
    start.request = start.tags = start.metadata = None


def _redact_end(end: RunEnd, run: RunRedaction) -> None:
    end.error_message, end.output = run.text(end.error_message), run.json(end.output)
    end.replies = run.replies(end.replies)


def _without_replies(end: RunEnd, run: RunRedaction) -> None:
    end.error_message, end.output = shown(WITHHELD), None
    end.replies = ()


def _withheld(message: BaseMessage) -> BaseMessage:
    return type(message)(shown(WITHHELD))


def _nothing(*_given: Any) -> None:
    return None
