"""An unexpected exception at the Nth call of a function of the writer does not end the recording."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import recorder
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import StoreError
from tests.faults.campaign import Fault, Round
from tests.faults.producer import Speaker, isolated, note, turns
from tests.oracle import Verdict, hasty, judge

_PACKAGE = str(Path(recorder.__file__).parent)
ERRORS: tuple[Callable[[], BaseException], ...] = (
    MemoryError,
    RecursionError,
    lambda: KeyError("nowhere"),
    OSError,
)
#: The error comes after at most this number of calls of functions.
_MOST_CALLS = 400
#: The second error comes after at most this number of further calls.
_SOON = 60
#: A frame whose instruction is after this offset is resumed, and not begun.
_BEGUN = 4


class Injector:
    """Raises at the Nth call of a function of the package on the writer's thread, and again after so many more calls.

    The second error often hits the code that handles the first one.
    """

    def __init__(self, numbers: Sequence[int], error: Callable[[], BaseException]) -> None:
        self.left, *self.later = numbers
        self.error = error
        self.where: list[str] = []

    def install(self) -> None:
        """Trace threads that begin from now on."""
        threading.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> None:
        if not threading.current_thread().name.startswith("recorder-writer"):
            sys.settrace(None)
            return
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(_PACKAGE) or _is_outermost(frame):
            return
        self.left -= 1
        if not self.left:
            self.where.append(f"{Path(code.co_filename).stem}.{code.co_name}:{frame.f_lineno}")
            if self.later:
                # Python stops tracing when the trace function raises; profiling goes on.
                self.left = self.later.pop(0)
                sys.setprofile(self._trace)
            raise self.error()


def _is_outermost(frame: FrameType) -> bool:
    """Whether the frame is that of the thread, or of the coroutine around the writer; neither can catch an error."""
    begun = frame.f_lasti > _BEGUN
    return frame.f_code.co_name == ("_run_writer" if begun else "_run_thread")


@contextmanager
def injected(injector: Injector) -> Iterator[None]:
    """Writers that begin inside fail."""
    injector.install()
    try:
        yield
    finally:
        threading.settrace(None)


def fail_in_writer(at: Round) -> Verdict:
    """One or two errors come anywhere in the writer; tokens are stored or have a gap row, and later ones are stored."""
    numbers = [at.chance.randrange(1, _MOST_CALLS)]
    error = at.chance.choice(ERRORS)
    if at.chance.random() < 0.5:
        numbers.append(at.chance.randrange(1, _SOON))
    injector = Injector(numbers, error)
    with hasty():
        with injected(injector):
            try:
                history = ChatHistoryCallback(at.url, flush_interval=0)
            except Exception:  # the error came while the database was opened, so the constructor raises
                return Verdict()
        verdict = _record(Speaker(history, at.number(0), lambda line: note(at.ledger, line)), at)
    verdict.add(judge(at.url, at.ledger, gaps=True))
    stats = history.stats()
    if verdict.gaps != stats.quarantined + stats.dropped:
        verdict.breaches.append(f"{verdict.gaps} tokens in gap rows")
    if stats.accepted != stats.queued + stats.committed + stats.dropped + stats.quarantined:
        verdict.breaches.append("the counters do not add up")
    if not verdict.exact:
        verdict.breaches.append(f"{injector.error()!r} in {injector.where}: {stats}")
    return verdict


def _record(speaker: Speaker, at: Round) -> Verdict:
    """Record some turns, the last two long after the error; every token counts as acknowledged."""
    verdict = Verdict()
    for turn, _ in zip(range(15), turns(speaker, at.chance, most=20), strict=False):
        try:
            speaker.history.flush().wait(20)
        except StoreError as error:
            if turn > 12:
                verdict.breaches.append(f"the writer did not recover: {error}")
        except TimeoutError:
            verdict.breaches.append(f"flush {turn} did not end")
            break
    for number in speaker.open_runs:
        speaker.finish(number)
    speaker.history.close(20).wait(30)
    speaker.report_new(speaker.lines())
    return verdict


FAULTS = [Fault("writer", "an exception anywhere in the writer", isolated(fail_in_writer))]
