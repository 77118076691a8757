"""One analyzer with its queue, its thread and its counts. No analyzer waits for another one."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from recorder.analysis.analyzers import has_messages, has_sentences
from recorder.analysis.annotations import annotation_of
from recorder.analysis.evaluation import Evaluation
from recorder.analysis.executor import Executor
from recorder.analysis.outcomes import Failed, Outcome, Skipped
from recorder.analysis.stats import AnalyzerStats
from recorder.analysis.texts import AnalyzedText
from recorder.core.clock import now
from recorder.core.waitable import Wait
from recorder.storage.rows import AnnotationRow

log = logging.getLogger("recorder")

#: How many texts, and about how many bytes of them, may wait for one analyzer.
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 32 * 2**20
#: The longest message that is analyzed (characters).
MAX_TEXT = 1_000_000
#: How many texts, and about how many bytes of them, are sent to a worker at once.
_BATCH, _BATCH_BYTES = 64, 2**20


class Marker:
    """Stands in the queue of every lane behind the same texts. `reached` ends when all lanes have come there."""

    def __init__(self, lanes: int) -> None:
        self.reached: Wait[None] = Wait()
        self._left = deque(range(lanes))

    def pass_by(self) -> None:
        """A lane has come there. May be called on any thread."""
        with suppress(IndexError):
            self._left.pop()
        if not self._left:
            self.reached.set(None)


class Lane:
    """Texts are put on one thread, in their order. They are analyzed on a thread of this lane's own."""

    def __init__(
        self, analyzer: Any, executor: Executor, store: Callable[[AnnotationRow], str | None]
    ) -> None:
        self.name: str = analyzer.name
        self.version: str = analyzer.version
        self.gets_sentences, self.gets_messages = has_sentences(analyzer), has_messages(analyzer)
        self.executor = executor
        #: Ends when the thread has ended.
        self.ended: Wait[None] = Wait()
        #: Set whenever texts were analyzed; for a caller that waits for room.
        self.progressed = threading.Event()
        # Hands an annotation to the recorder; returns why that failed, or None.
        self._store = store
        # None is the end.
        self._queue: SimpleQueue[AnalyzedText | Marker | None] = SimpleQueue()
        # Counted by the thread that puts, and by the lane's own.
        self._put, self._put_bytes, self._refused = 0, 0, 0
        self._settled, self._settled_bytes = 0, 0
        self._analyzed = self._skipped = self._failed = self._annotations = 0
        self._last_error: str | None = None
        self._is_reported = False

    # -- the thread that puts --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` if there can be none."""
        threading.Thread(target=self._run, name=f"recorder-analysis-{self.name}", daemon=True).start()

    def wants(self, text: AnalyzedText) -> bool:
        """Whether the analyzer evaluates texts of this kind."""
        return self.gets_sentences if text.is_sentence else self.gets_messages

    @property
    def has_room(self) -> bool:
        """Whether another text may wait."""
        waiting_bytes = self._put_bytes - self._settled_bytes
        return self._put - self._settled < MAX_WAITING and waiting_bytes < MAX_WAITING_BYTES

    def put(self, text: AnalyzedText) -> None:
        """Let the analyzer evaluate this text. It is skipped if too many wait or if it is too long."""
        if not self.has_room or len(text.text) > MAX_TEXT:
            self._refused += 1
            return
        self._put += 1
        self._put_bytes += text.size
        self._queue.put(text)

    def mark(self, marker: Marker) -> None:
        """Pass this marker when everything before it is analyzed."""
        self._queue.put(marker)
        if self.ended.done:
            self._pass_markers()

    def finish(self) -> None:
        """No text will follow."""
        self._queue.put(None)

    def stats(self) -> AnalyzerStats:
        """The counts. May be called on any thread."""
        settled = self._settled
        return AnalyzerStats(
            analyzed=self._analyzed,
            waiting=max(0, self._put - settled),
            skipped=self._skipped + self._refused,
            failed=self._failed,
            annotations=self._annotations,
            restarts=self.executor.restarts,
            last_error=self._last_error,
        )

    # -- the thread of the lane ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._evaluate_batch():
                pass
        except BaseException:  # a bug in recorder, or no memory
            log.exception("The analyzer %r ended; please report this", self.name)
        finally:
            self.executor.close()
            self.ended.set(None)
            self._pass_markers()

    def _evaluate_batch(self) -> bool:
        """Evaluate what waits. Returns whether more may follow."""
        texts, marker, goes_on = self._next_batch()
        left = iter(texts)
        for outcome, text in zip(self.executor.evaluate(texts) if texts else (), left, strict=False):
            self._settle(text, outcome)
        for text in left:
            self._settle(text, Skipped("the recorder was closed"))
        if marker is not None:
            marker.pass_by()
        self.progressed.set()
        return goes_on

    def _next_batch(self) -> tuple[Sequence[AnalyzedText], Marker | None, bool]:
        texts: list[AnalyzedText] = []
        size = 0
        item = self._queue.get()
        while isinstance(item, AnalyzedText):
            texts.append(item)
            size += item.size
            if len(texts) >= _BATCH or size >= _BATCH_BYTES:
                return texts, None, True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return texts, None, True
        return texts, item, item is not None

    def _settle(self, text: AnalyzedText, outcome: Outcome) -> None:
        if isinstance(outcome, Evaluation):
            outcome = self._stored(text, outcome)
        if isinstance(outcome, Failed):
            self._failed += 1
            self._report(outcome)
        elif isinstance(outcome, Skipped):
            self._skipped += 1
        else:
            self._analyzed += 1
        self._settled_bytes += text.size
        self._settled += 1

    def _stored(self, text: AnalyzedText, evaluation: Evaluation) -> Outcome:
        refusal = self._store(annotation_of(text, self.name, self.version, evaluation, now()))
        if refusal is not None:
            return Failed(refusal)
        self._annotations += 1
        return evaluation

    def _report(self, failure: Failed) -> None:
        """Log the first failure. Later ones are counted."""
        self._last_error = failure.error
        if not self._is_reported:
            self._is_reported = True
            log.error(
                "The analyzer %r failed: %s; recording goes on, later failures are counted in analysis.stats()%s",
                self.name, failure.error, f"\n{failure.traceback}" if failure.traceback else "",
            )  # fmt: skip

    def _pass_markers(self) -> None:
        with suppress(Empty):
            while True:
                if isinstance(item := self._queue.get_nowait(), Marker):
                    item.pass_by()
