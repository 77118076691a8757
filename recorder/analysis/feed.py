"""Turns what was committed into the texts that analyzers get: finished messages, and sentences while they stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from recorder.analysis.sentences import Sentence, SentenceCutter, sentences_in
from recorder.analysis.texts import AnalyzedText
from recorder.core.escaping import ESCAPE, unescape
from recorder.core.json import loads
from recorder.storage.batch import Addition, Part
from recorder.storage.rows import MessageRow, SegmentRow
from recorder.wire.deltas import TEXT

#: The roles whose messages are analyzed.
ROLES = frozenset(("user", "assistant"))
#: How many runs may be cut into sentences at the same time, and how many replies of each.
_MAX_STREAMS, _MAX_CHOICES = 10_000, 64


class CommittedText(NamedTuple):
    """The texts of one part of a transaction, without its frames and its request."""

    conversation_id: str
    #: None of an addition.
    run_id: str | None
    messages: Sequence[MessageRow] = ()
    segments: Sequence[SegmentRow] = ()
    #: Whether the run has ended.
    is_end: bool = False

    @property
    def size(self) -> int:
        """About how many bytes it takes while it waits."""
        texts = sum(len(row.content) for row in self.messages) + sum(len(row.deltas) for row in self.segments)
        return 1_000 + 4 * texts


def committed_text(part: Part) -> CommittedText | None:
    """The texts of a part; None if it has none."""
    messages = [row for row in part.messages if row.role in ROLES]
    if isinstance(part, Addition):
        return CommittedText(part.conversation_id, None, messages) if messages else None
    is_end = part.seal is not None and part.seal.end.ended_at is not None
    if part.start.is_step or not (messages or part.segments or is_end):
        return None
    return CommittedText(part.start.conversation_id, part.start.run_id, messages, part.segments, is_end)


class TextFeed:
    """Follows runs. `sentences` says whether anything evaluates sentences."""

    def __init__(self, *, sentences: bool) -> None:
        self._sentences = sentences
        self._streams: dict[str, _Stream] = {}

    def texts(self, part: CommittedText) -> Iterator[AnalyzedText]:
        """What can be analyzed now, in the order of the part."""
        answered = [row for row in part.messages if row.run_id is None]
        for row in answered:
            yield from texts_of_message(row, sentences=self._sentences)
        stream = self._stream(part)
        if stream is not None:
            yield from stream.feed(part.segments)
        if stream is not None and part.is_end:
            yield from self._streams.pop(stream.run_id, stream).finish()
        replies = [row for row in part.messages if row.run_id is not None]
        for choice, row in enumerate(replies):
            unstreamed = self._sentences and (stream is None or stream.has_none_of(choice))
            yield from texts_of_message(row, choice=choice, sentences=unstreamed)

    def _stream(self, part: CommittedText) -> _Stream | None:
        if part.run_id is None or not self._sentences:
            return None
        found = self._streams.get(part.run_id)
        if found is None:
            found = _Stream(part.run_id, part.conversation_id)
            if len(self._streams) < _MAX_STREAMS:
                self._streams[part.run_id] = found
        return found


class _Stream:
    """The text of one run, for each of its replies."""

    def __init__(self, run_id: str, conversation_id: str) -> None:
        self.run_id = run_id
        self._conversation_id = conversation_id
        self._cutters: dict[int, SentenceCutter] = {}
        #: The number of the next token. None when one is missing: later offsets would be wrong.
        self._next_seq: int | None = 0

    def has_none_of(self, choice: int) -> bool:
        """Whether no token of this reply came, because the call did not stream."""
        return self._next_seq == 0 and choice not in self._cutters

    def feed(self, segments: Sequence[SegmentRow]) -> Iterator[AnalyzedText]:
        for row in segments:
            if row.seq != self._next_seq:
                self._next_seq = None
                return
            self._next_seq += row.count
            for choice, text in text_by_choice(row.deltas).items():
                if choice < _MAX_CHOICES:
                    cutter = self._cutters.setdefault(choice, SentenceCutter())
                    yield from self._texts(choice, cutter.feed(text))

    def finish(self) -> Iterator[AnalyzedText]:
        for choice, cutter in self._cutters.items() if self._next_seq is not None else ():
            yield from self._texts(choice, cutter.finish())

    def _texts(self, choice: int, sentences: Iterable[Sentence]) -> Iterator[AnalyzedText]:
        return _sentences(sentences, "assistant", self._conversation_id, self.run_id, None, choice)


def texts_of_message(row: MessageRow, *, choice: int = 0, sentences: bool) -> Iterator[AnalyzedText]:
    """A stored message and, with `sentences`, its sentences before it."""
    text = unescape(row.content)
    if not text or row.role not in ROLES:
        return
    conversation_id = unescape(row.conversation_id)
    if sentences:
        message_id = row.id if row.run_id is None else None  # as of a sentence that streams
        yield from _sentences(sentences_in(text), row.role, conversation_id, row.run_id, message_id, choice)
    yield AnalyzedText(text, row.role, conversation_id, row.run_id, row.id, choice=choice, end=len(text))


def text_by_choice(deltas: str) -> dict[int, str]:
    """The text of a row of tokens, by the number of the reply that it belongs to."""
    found: dict[int, list[str]] = {}
    for _, text, *rest in loads(deltas):
        kind, idx = rest or (TEXT, "0")
        if kind == TEXT:
            found.setdefault(_choice(idx), []).append(text)
    return {choice: _plain("".join(texts)) for choice, texts in found.items()}


def _choice(idx: Any) -> int:
    first = str(idx).partition(".")[0]
    return int(first) if first.isdigit() else 0


def _plain(text: str) -> str:
    return unescape(text) if ESCAPE in text else text


def _sentences(
    sentences: Iterable[Sentence], role: str, conversation_id: str, run_id: str | None, message_id: str | None,
    choice: int,
) -> Iterator[AnalyzedText]:  # fmt: skip
    for each in sentences:
        yield AnalyzedText(
            each.text, role, conversation_id, run_id, message_id, True, choice, each.start, each.end
        )
