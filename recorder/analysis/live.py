"""`Analysis`: analyzes what a recorder commits, and stores the results through the recorder's queue.

The writer's thread only hands over what it has committed. One thread cuts it into sentences, and each analyzer has a
lane of its own. All queues are bounded: what does not fit is skipped and counted, and recording never waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from math import inf
from queue import SimpleQueue
from typing import Any, Literal

from recorder.analysis.analyzers import analyzers_from
from recorder.analysis.call_limits import CallLimits
from recorder.analysis.executor import Executor
from recorder.analysis.feed import CommittedText, TextFeed, committed_text
from recorder.analysis.lane import Lane, Marker
from recorder.analysis.stats import AnalysisStats
from recorder.analysis.texts import AnalyzedText
from recorder.analysis.worker_process import WorkerProcess, pickled
from recorder.analysis.worker_thread import WorkerThread
from recorder.core.deadline import seconds
from recorder.core.thread_yield import ThreadYield
from recorder.core.waitable import Wait
from recorder.errors import ConfigError, RecorderError
from recorder.storage.batch import Part
from recorder.storage.rows import AnnotationRow, RunStart

log = logging.getLogger("recorder")

#: How many parts of transactions, and about how many bytes of them, may wait to be cut into sentences.
MAX_PARTS = 20_000
MAX_PART_BYTES = 64 * 2**20

ExecutorName = Literal["process", "thread"]


class Analysis:
    """A listener of a recorder. Raises `ConfigError` and `MissingExtra` for analyzers that cannot run.

    `analyzers` are names, functions and objects (`recorder.analysis.Analyzer`). With `executor="process"` each one has
    a worker process, and a call that takes longer than `timeout` seconds is killed; with `executor="thread"` it is
    abandoned.
    """

    def __init__(self, analyzers: Any, *, executor: ExecutorName = "process", timeout: float = 5.0) -> None:
        if executor not in ("process", "thread"):
            raise ConfigError(f"analyze_in is {executor!r}; choose 'process' or 'thread'")
        found = analyzers_from(analyzers)
        self._limits = CallLimits(timeout)
        self._make = [(each, self._executor_of(each, executor)) for each in found]
        self._annotate: Callable[[AnnotationRow], None] | None = None
        self._reset()

    def _reset(self) -> None:
        """The state before anything was committed."""
        self._limits.until = inf
        self.lanes = [Lane(analyzer, executor, self._store) for analyzer, executor in self._make]
        self._feed = TextFeed(sentences=any(lane.gets_sentences for lane in self.lanes))
        # What was committed; a marker that shows when everything before it is analyzed; None is the end.
        self._queue: SimpleQueue[CommittedText | Marker | None] = SimpleQueue()
        self._put, self._put_bytes, self._skipped = 0, 0, 0
        self._settled, self._settled_bytes = 0, 0
        self._started = self._finishing = False
        self._ended: Wait[None] = Wait()

    def store_with(self, annotate: Callable[[AnnotationRow], None]) -> None:
        """Hand annotations to this function, which is `Recorder.annotate`."""
        self._annotate = annotate

    # -- the application's side ------------------------------------------------------------------------------

    def flush(self) -> Wait[None]:
        """Ends when everything that was committed before is analyzed and the annotations are in the recorder's queue.

        `history.flush()` waits until what was recorded is committed, and says nothing about its annotations. So after
        `history.flush()`, `history.analysis.flush()` and `history.flush()` the annotations are stored.
        """
        marker = Marker(len(self.lanes))
        if self._started:
            self._queue.put(marker)
        if not self._started or self._ended.done:
            marker.reached.set(None)
        return marker.reached

    def stats(self) -> AnalysisStats:
        """What is analyzed, waiting, skipped and failed, in all and of each analyzer."""
        found = {lane.name: lane.stats() for lane in self.lanes}
        each = found.values()
        return AnalysisStats(
            analyzed=sum(one.analyzed for one in each),
            waiting=sum(one.waiting for one in each) + max(0, self._put - self._settled),
            skipped=sum(one.skipped for one in each),
            failed=sum(one.failed for one in each),
            by_analyzer=found,
            parts_skipped=self._skipped,
        )

    # -- the recorder's side: `RecordingListener` and `FinishingListener` -------------------------------------

    def begun(self, start: RunStart) -> None:
        """Nothing is done on the thread of a model's call."""

    def committed(self, parts: Sequence[Part]) -> None:
        """Hand over the texts of these parts."""
        for part in parts:
            if (found := committed_text(part)) is not None:
                self._hand_over(found)

    def finish(self, seconds_left: float) -> Wait[None] | None:
        """Nothing more will be committed. Analyze what waits, for at most so many seconds."""
        if not self._started:
            return None
        self._limits.until = min(self._limits.until, seconds() + seconds_left)
        self._end_queue()
        return self._ended

    def end(self) -> None:
        """Annotations are not stored any more: end now. Takes no lock."""
        self._limits.until = 0.0
        self._end_queue()

    def reset_in_child(self) -> None:
        """In a forked child: begin anew. The threads and workers are the parent's."""
        for _, executor in self._make:
            executor.forget_in_child()
        self._reset()

    # -- for texts that come from elsewhere -------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads; they are started by the first commit otherwise. Raises `RuntimeError` if there can be
        none."""
        try:
            threading.Thread(target=self._run, name="recorder-analysis", daemon=True).start()
            for lane in self.lanes:
                lane.start()
        except RuntimeError:
            for lane in self.lanes:  # those that have no thread would be waited for
                lane.ended.set(None)
            raise
        self._started = True

    def put(self, lane: Lane, text: AnalyzedText) -> None:
        """Let one analyzer evaluate a text. Waits while too many wait for it, however long that takes."""
        while not (lane.has_room or lane.ended.done):
            lane.progressed.clear()
            if not lane.has_room:
                lane.progressed.wait(1.0)
        lane.put(text)

    # -- inside ----------------------------------------------------------------------------------------------

    def _executor_of(self, analyzer: Any, executor: str) -> Executor:
        if executor == "thread":
            return WorkerThread(analyzer, self._limits)
        return WorkerProcess(pickled(analyzer), self._limits)

    def _hand_over(self, part: CommittedText) -> None:
        if self._finishing or not self._has_room:
            self._skipped += 1
            return
        if not self._started and not self._try_to_start():
            self._skipped += 1
            return
        self._put += 1
        self._put_bytes += part.size
        self._queue.put(part)

    def _try_to_start(self) -> bool:
        try:
            self.start()
        except RuntimeError as error:  # the limit of threads is reached, or the interpreter ends
            log.error("Nothing is analyzed, because no thread can be started: %s; recording goes on", error)
            self.end()
        return self._started

    @property
    def _has_room(self) -> bool:
        waiting_bytes = self._put_bytes - self._settled_bytes
        return self._put - self._settled < MAX_PARTS and waiting_bytes < MAX_PART_BYTES

    def _end_queue(self) -> None:
        self._finishing = True
        self._queue.put(None)

    def _run(self) -> None:
        yield_thread = ThreadYield()
        try:
            while (item := self._queue.get()) is not None:
                self._settle(item)
                yield_thread()
        except BaseException:  # no memory
            log.exception("The analysis ended; please report this")
        finally:
            self._end_lanes()

    def _settle(self, item: CommittedText | Marker) -> None:
        if isinstance(item, Marker):
            for lane in self.lanes:
                lane.mark(item)
            return
        try:
            if not self._limits.is_over:
                self._put_texts(item)
        except Exception:  # a bug in recorder
            log.exception("A text was not analyzed; please report this")
            self._skipped += 1
        self._settled_bytes += item.size
        self._settled += 1

    def _put_texts(self, part: CommittedText) -> None:
        for text in self._feed.texts(part):
            for lane in self.lanes:
                if lane.wants(text):
                    lane.put(text)

    def _end_lanes(self) -> None:
        for lane in self.lanes:
            lane.finish()
        for lane in self.lanes:
            lane.ended.wait()
        self._ended.set(None)
        while not self._queue.empty():
            if isinstance(item := self._queue.get_nowait(), Marker):
                item.reached.set(None)

    def _store(self, row: AnnotationRow) -> str | None:
        """Hand an annotation to the recorder. Returns why that failed, or None."""
        try:
            if self._annotate is None:
                return "no recorder stores annotations"
            self._annotate(row)
        except RecorderError as error:
            return f"its annotation was not stored: {error}"
        return None
