"""`StoredAnalysis`: analyzes what is stored already. Doing it twice adds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Self

from recorder.analysis.annotations import annotation_id
from recorder.analysis.feed import CommittedText, TextFeed, texts_of_message
from recorder.analysis.live import Analysis, ExecutorName
from recorder.analysis.stats import AnalysisStats
from recorder.analysis.stored_texts import OpenEnd, StoredMessageText, StoredTexts
from recorder.analysis.texts import AnalyzedText
from recorder.callbacks.outside_langchain import OutsideLangChain
from recorder.config import Config, default_url
from recorder.recording.recorder import Recorder

#: Called with the number of messages that were read, and of those that there are.
OnAnalyzed = Callable[[int, int], None]


@dataclass(slots=True)
class AnalyzedCounts:
    """What was looked at."""

    #: Messages, and runs without a message, that were read.
    messages: int = 0
    #: Evaluations that were stored already, so that nothing was done.
    stored: int = 0
    #: Texts that an analyzer got.
    texts: int = 0


class StoredAnalysis(OutsideLangChain):
    """Analyzes the recordings of a database, and stores the results there.

    What is evaluated has the same id as when it was evaluated live, so nothing is stored twice. It is also a callback
    handler: `replay.into(StoredAnalysis(url, ["sentiment"]))` analyzes each run that is played. Raises as `Analysis`
    and `Recorder` do, and `StoreError` for a database that does not exist.
    """

    def __init__(
        self, url: str | None = None, analyzers: Any = ("sentiment",), *, executor: ExecutorName = "process",
        timeout: float = 5.0,
    ) -> None:  # fmt: skip
        self._analysis = Analysis(analyzers, executor=executor, timeout=timeout)
        #: What is read.
        self.texts = StoredTexts(url or default_url())
        try:
            # It waits for room in the queue: here nothing streams that would be delayed.
            self._recorder = Recorder(url, Config(block_timeout=60.0, strict=True))
        except BaseException:
            self.texts.close()
            raise
        self._analysis.store_with(self._recorder.annotate)
        self._recorder.listeners.add(self._analysis)
        self._analysis.start()
        self._feed = TextFeed(sentences=self._wants_sentences)
        self.done = AnalyzedCounts()

    @property
    def _wants_sentences(self) -> bool:
        return any(lane.gets_sentences for lane in self._analysis.lanes)

    def run(self, id: str | None = None, *, on_progress: OnAnalyzed | None = None) -> AnalyzedCounts:
        """Analyze a conversation, a run with its prompt, or everything. Returns when all of it is stored.

        `id` may be the beginning of an id. Raises `NotFound`.
        """
        found = self.texts.find(id) if id is not None else None
        total = self.texts.count(found) if on_progress is not None else 0
        for page in self.texts.messages(found):
            self.put_messages(page)
            if on_progress is not None:
                on_progress(self.done.messages, total)
        for run in self.texts.runs_without_message(found):
            if not run.is_open:
                self.put_run(run)
        self.flush()
        return self.done

    def put_messages(self, page: Sequence[StoredMessageText], *, sentences: bool = True) -> None:
        """Analyze these messages and, unless they were analyzed while they streamed, their sentences."""
        wanted = sentences and self._wants_sentences
        texts = (texts_of_message(row, choice=choice, sentences=wanted) for row, choice in page)
        self._put(list(chain.from_iterable(texts)))
        self.done.messages += len(page)

    def put_run(self, run: OpenEnd, seq: int = 0) -> int:
        """Analyze the sentences of a run that has no message yet from token `seq` on. Returns where its tokens end."""
        rows = list(self.texts.segments(run.id, seq)) if self._wants_sentences else []
        part = CommittedText(run.conversation_id, run.id, (), rows, not run.is_open)
        self._put(list(self._feed.texts(part)))
        return rows[-1].seq + rows[-1].count if rows else seq

    def flush(self) -> None:
        """Wait until everything is analyzed and stored."""
        self._analysis.flush().wait()
        self._recorder.flush().wait()

    def stats(self) -> AnalysisStats:
        """As `history.analysis.stats()`."""
        return self._analysis.stats()

    def close(self) -> None:
        """End the analyzers and close the database; what waits for an analyzer is analyzed before."""
        self._recorder.close().wait()
        self.texts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- as a callback handler -------------------------------------------------------------------------------

    def on_llm_end(self, response: Any, *, run_id: Any, **kwargs: Any) -> None:
        """Analyze the run that was played."""
        self.run(str(run_id))

    def on_llm_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
        """Analyze what there is of the run."""
        self.run(str(run_id))

    # -- inside ----------------------------------------------------------------------------------------------

    def _put(self, texts: list[AnalyzedText]) -> None:
        known = self.texts.annotation_ids([text.owner_id for text in texts])
        for text in texts:
            self._put_one(text, known)

    def _put_one(self, text: AnalyzedText, known: Iterable[str]) -> None:
        for lane in self._analysis.lanes:
            if not lane.wants(text):
                continue
            if annotation_id(text, lane.name, lane.version) in known:
                self.done.stored += 1
            else:
                self.done.texts += 1
                self._analysis.put(lane, text)
