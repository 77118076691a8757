"""Runs an analyzer in a worker process, which is killed if a call takes too long, and started again."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from recorder.analysis.call_limits import SLICE, START_TIMEOUT, CallLimits, Pauses
from recorder.analysis.frames import FrameReader, packed
from recorder.analysis.outcomes import Failed, Outcome, Skipped
from recorder.analysis.texts import AnalyzedText
from recorder.analysis.worker import WorkerSetup
from recorder.core.deadline import seconds
from recorder.errors import ConfigError

#: A worker gets the module path of the application, because its analyzer may come from there. It runs no program of the
#: application: a script without `if __name__ == "__main__"` would record everything once more.
_COMMAND = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from recorder.analysis.worker import main; main()"
#: Under `recorder run` this variable makes every Python process record its model calls. A worker records nothing.
_NOT_INHERITED = "PYTHONPATH"


def pickled(analyzer: Any) -> bytes:
    """The analyzer for a worker process. Raises `ConfigError` if it cannot be sent there."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise ConfigError(
            "Analyzers run in a worker process, and this program has no Python interpreter to start one; "
            "pass analyze_in='thread'"
        )
    try:
        return _dumps(analyzer)
    except Exception as error:  # the methods of the object may raise anything
        raise ConfigError(
            f"The analyzer {analyzer.name!r} cannot be sent to a worker process ({type(error).__name__}: "
            f"{error!s:.200}); make what it holds in its method prepare(), or pass analyze_in='thread'"
        ) from error


def _dumps(analyzer: Any) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        import pickle

        return pickle.dumps(analyzer)
    # By value where the module is the program itself, which a worker must not run.
    found: bytes = cloudpickle.dumps(analyzer)
    return found


class WorkerProcess:
    """An `Executor`. The process is started for the first text."""

    def __init__(self, analyzer: bytes, limits: CallLimits) -> None:
        self.restarts = 0
        self._analyzer = analyzer
        self._limits = limits
        self._pauses = Pauses()
        self._channel: _Channel | None = None

    def evaluate(self, texts: Sequence[AnalyzedText]) -> Iterator[Outcome]:
        """As `Executor.evaluate`."""
        left = list(texts)
        while left and not self._limits.is_over:
            if self._pauses.is_pausing:
                yield Skipped("the analyzer pauses after failures in a row")
                left.pop(0)
                continue
            for outcome in self._evaluate_some(left):
                left.pop(0)
                yield outcome

    def close(self) -> None:
        """As `Executor.close`."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.kill()

    def forget_in_child(self) -> None:
        """As `Executor.forget_in_child`."""
        channel, self._channel = self._channel, None
        self._pauses = Pauses()
        self.restarts = 0
        if channel is not None:
            channel.forget_in_child()

    def _evaluate_some(self, texts: list[AnalyzedText]) -> Iterator[Outcome]:
        """Outcomes until the worker fails."""
        failure = self._start() if self._channel is None else None
        if failure is not None:
            yield failure
            return
        assert self._channel is not None
        self._channel.send([tuple(text) for text in texts])
        for _ in range(len(texts)):
            answer = self._channel.receive(self._limits.timeout)
            if isinstance(answer, str):
                self._fail()
                if answer != _OVER:
                    yield Failed(answer)
                return
            self._pauses.succeeded()
            yield answer[0]

    def _start(self) -> Failed | None:
        try:
            self._channel = channel = _Channel(self._limits)
        except OSError as error:  # no process or no file descriptor is left
            self._pauses.failed()
            return Failed(f"its worker process cannot be started: {error}")
        channel.send(WorkerSetup(self._analyzer, self._limits.timeout, START_TIMEOUT))
        answer = channel.receive(START_TIMEOUT)
        failure = (
            Failed(f"its worker process did not start: {answer}") if isinstance(answer, str) else answer[0]
        )
        if failure is not None:
            self._fail()
        return failure

    def _fail(self) -> None:
        self._pauses.failed()
        self.restarts += 1
        self.close()


_OVER = "the time to close is over"


class _Channel:
    """A worker process and its two pipes. Neither reading nor writing blocks beyond the limits."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        environment = {name: value for name, value in os.environ.items() if name != _NOT_INHERITED}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, json.dumps(sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._reader = FrameReader(self._output)
        self._unsent = b""

    def send(self, value: Any) -> None:
        """Send a message; what the pipe does not hold now is sent while `receive` waits."""
        self._unsent += packed(value)
        self._write()

    def receive(self, timeout: float) -> tuple[Any] | str:
        """The next message in a tuple, or why there is none."""
        over = seconds() + timeout
        while (found := self._reader.pop()) is None:
            left = min(over, self._limits.until) - seconds()
            if left <= 0:
                return _OVER if self._limits.is_over else f"it did not return within {timeout:g} s"
            ready = self._poll(min(left, SLICE))
            if self._output in ready and not self._reader.read():
                return f"its worker process ended with exit code {self._process.wait()}"
            if self._input in ready:
                self._write()
        return found

    def kill(self) -> None:
        """End the process, whatever it does."""
        with suppress(OSError):
            self._process.kill()
        with suppress(Exception):
            self._process.wait(5)
        self._close()

    def forget_in_child(self) -> None:
        """In a forked child: close the copies of the pipes. Otherwise the parent's worker would outlive the parent."""
        self._process.returncode = 0  # so that its finalizer does not wait for the parent's child
        self._close()

    def _poll(self, timeout: float) -> set[int]:
        """The pipes that can be read or written now."""
        poll = select.poll()  # not `select`, which knows only the first 1,024 descriptors
        poll.register(self._output, select.POLLIN)
        if self._unsent:
            poll.register(self._input, select.POLLOUT)
        return {descriptor for descriptor, _ in poll.poll(timeout * 1e3)}

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._input, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # the process has ended, which `receive` reports
            self._unsent = b""
