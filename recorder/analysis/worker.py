"""The worker process: gets texts through its standard input, and answers each one through its standard output.

It ends with the application: at the end of its input, or when its parent is another process. It also ends if a call
takes much longer than allowed, by a timer of the operating system, because a regular expression that never ends holds
Python's global lock, and then no thread of the worker can look.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
from queue import SimpleQueue
from typing import Any, NamedTuple

from recorder.analysis.calls import AnalyzerCalls
from recorder.analysis.frames import FrameReader, packed
from recorder.analysis.texts import AnalyzedText

#: How often the worker looks whether its parent lives (seconds).
_LOOK_EVERY = 1.0
#: How much longer than allowed a call may last before the worker ends itself (seconds).
_GRACE = 2.0


class WorkerSetup(NamedTuple):
    """The first message that a worker gets."""

    #: The analyzer, pickled.
    analyzer: bytes
    #: How long a call, and how long the preparation may take (seconds).
    timeout: float
    start_timeout: float


def main() -> None:
    """Work until the input ends."""
    parent = os.getppid()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the application, which closes in order
    given, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what the analyzer prints must not be taken for an answer
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    messages: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(given, parent, messages), daemon=True).start()
    setup: WorkerSetup = messages.get()
    with _Timer(setup.start_timeout):
        calls, failure = _prepared(setup.analyzer)
    _write(answers, failure)
    while calls is not None and failure is None:
        for text in messages.get():
            with _Timer(setup.timeout):
                outcome = calls.evaluate(AnalyzedText(*text))
            _write(answers, outcome)


def _prepared(analyzer: bytes) -> tuple[AnalyzerCalls | None, Any]:
    try:
        calls = AnalyzerCalls(pickle.loads(analyzer))
    except BaseException as error:
        from recorder.analysis.outcomes import Failed

        return None, Failed(f"it cannot be loaded in a worker process: {type(error).__name__}: {error}"[:300])
    return calls, calls.prepare()


def _read(descriptor: int, parent: int, messages: SimpleQueue[Any]) -> None:
    """Pass messages to the main thread. End the process with the input, or with its parent."""
    reader = FrameReader(descriptor)
    while True:
        readable, _, _ = select.select([descriptor], [], [], _LOOK_EVERY)
        if os.getppid() != parent or (readable and not reader.read()):
            os._exit(0)
        while (found := reader.pop()) is not None:
            messages.put(found[0])


def _write(descriptor: int, answer: Any) -> None:
    left = memoryview(packed(answer))
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:  # the application is gone
        os._exit(0)


class _Timer:
    """Lets the operating system end the process if the `with` block lasts too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds + _GRACE

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit("This is the worker process of recorder.analysis; recorder starts it.")
