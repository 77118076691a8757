"""Producers that record runs and report what was acknowledged, in this process or in one that may be killed."""

from __future__ import annotations

import faulthandler
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.storage.rows import COMPLETE
from recorder.wire.deltas import Delta
from tests.faults.campaign import Round
from tests.oracle import Acknowledged, Ledger, Verdict, begin, finish, token

#: A child that still runs after this time prints its stacks and ends (seconds).
STUCK_AFTER = 40.0


class Speaker:
    """Records runs by their numbers, and reports what the recorder acknowledged."""

    def __init__(self, history: ChatHistoryCallback, first: int, report: Callable[[str], Any]) -> None:
        self.history = history
        self.first = first
        self.report = report
        #: Tokens of each run so far.
        self.counts: dict[int, int] = {}
        #: The status of each run that has ended.
        self.ends: dict[int, str] = {}
        #: The last report of each run.
        self._reported: dict[int, str] = {}

    @property
    def open_runs(self) -> list[int]:
        """The numbers of runs that have not ended."""
        return [number for number in self.counts if number not in self.ends]

    def begin(self) -> int:
        """Begin a run with a question of its own, and return its number."""
        number = self.first + len(self.counts)
        begin(self.history, HumanMessage(f"question {number}"), run_id=uuid.UUID(int=number))
        self.counts[number] = 0
        return number

    def say(self, number: int, size: int) -> None:
        """Add so many tokens; runs with an odd number get them with frames."""
        run_id = uuid.UUID(int=number)
        for seq in range(self.counts[number], self.counts[number] + size):
            text = token(number, seq)
            if number % 2:
                self.history.on_stream_frame(b"data: %d\n\n" % seq, 1000 * seq, [Delta(text)], run_id=run_id)
            else:
                self.history.on_llm_new_token(text, run_id=run_id)
            self.counts[number] = seq + 1

    def finish(self, number: int) -> None:
        """End the run without an error, with an answer of its own."""
        finish(self.history, uuid.UUID(int=number), f"answer {number}")
        self.ends[number] = COMPLETE

    def acknowledge(self, timeout: float = 30.0) -> None:
        """Flush, and report everything that was recorded before; raises what the flush raises."""
        lines = self.lines()
        self.history.flush().wait(timeout)
        self.report_new(lines)

    def close(self, timeout: float = 30.0) -> None:
        """End all runs, close, and report everything."""
        for number in self.open_runs:
            self.finish(number)
        lines = self.lines()
        stats = self.history.close(timeout).wait(timeout + 10)
        if stats.dropped or stats.queued:
            raise RuntimeError(f"closed with tokens that are not stored: {stats}")
        self.report_new(lines)

    def report_new(self, lines: dict[int, str]) -> None:
        """Report the lines that were not reported yet."""
        for number, line in lines.items():
            if self._reported.get(number) != line:
                self._reported[number] = line
                self.report(line)

    def lines(self) -> dict[int, str]:
        """The reports of everything that was recorded until now, by the number of the run."""
        return {
            number: line_of(number, count, self.ends.get(number)) for number, count in self.counts.items()
        }


@contextmanager
def speaking(at: Round, url: str | None = None, **options: Any) -> Iterator[Speaker]:
    """A producer in this process, whose recorder is closed afterwards in any case."""
    history = ChatHistoryCallback(url or at.url, **{"flush_interval": 0, **options})
    try:
        yield Speaker(history, at.number(0), lambda line: note(at.ledger, line))
    finally:
        history.close(0)


def line_of(number: int, count: int, status: str | None) -> str:
    """One report: so many tokens of this run are committed, and its end if there is a status."""
    return f"{number} {count} {status or '-'}\n"


def note(ledger: Ledger, report: str) -> None:
    """Write reports into the ledger; a kill may have cut off the last one."""
    for line in report.split("\n")[:-1]:
        number, tokens, status = line.split(" ")
        known = ledger.setdefault(int(number), Acknowledged())
        known.tokens = max(known.tokens, int(tokens))
        known.status = known.status or (None if status == "-" else status)


def warm_up(speaker: Speaker, chance: random.Random, times: int = 3) -> None:
    """Record some turns and flush, so that the database is open and runs stream."""
    for _, _ in zip(range(times), turns(speaker, chance), strict=False):
        speaker.acknowledge()


def turns(speaker: Speaker, chance: random.Random, *, open_runs: int = 4, most: int = 60) -> Iterator[None]:
    """Begin, stream and end runs for ever; nothing of a turn is acknowledged before it is yielded."""
    while True:
        for _ in range(chance.randrange(1, 5)):
            found = speaker.open_runs
            if len(found) < open_runs and (not found or chance.random() < 0.3):
                speaker.begin()
            elif chance.random() < 0.1:
                speaker.finish(chance.choice(found))
            else:
                speaker.say(chance.choice(found), chance.randrange(most))
        yield


# -- other processes ---------------------------------------------------------------------------------------------


@cache
def _context() -> ForkServerContext:
    """A fork server that has imported everything, so that a process starts in 20 ms instead of 2 s."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.producer", "alembic.command", "recorder.models.openai"])
    return context


class Child:
    """A process that reports over a pipe and may be killed together with its children."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        self.reports, writer = _context().Pipe(duplex=False)
        self.errors, errors = _context().Pipe(duplex=False)
        self.process: BaseProcess = _context().Process(target=_run, args=(writer, errors, work, arguments))
        self.process.start()
        writer.close()
        errors.close()
        self._report = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def report(self) -> str:
        """What it has reported so far."""
        return self._report.decode()

    def read(self, seconds: float) -> bool:
        """Read reports for so many seconds; False when the child has closed its pipe."""
        over = time.monotonic() + seconds
        while (left := over - time.monotonic()) > 0:
            if wait([self.reports], left):
                data = os.read(self.reports.fileno(), 65_536)
                if not data:
                    return False
                self._report += data
        return True

    def read_until_reported(self, seconds: float = 60.0) -> None:
        """Wait for its first report."""
        over = time.monotonic() + seconds
        while not self._report and time.monotonic() < over and self.read(0.005):
            pass

    def kill(self) -> None:
        """SIGKILL it and its children, and read what it had reported."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the process has not begun, or has ended
        self.process.kill()
        self._end()

    def end(self, seconds: float = STUCK_AFTER + 30) -> str:
        """Wait for its end; return why it failed, or ""."""
        over = not self.read(seconds)
        if not over:
            self.kill()
            return f"no end after {seconds:g} s"
        self._end()
        stderr = b""
        while data := os.read(self.errors.fileno(), 65_536):
            stderr += data
        if self.process.exitcode == 0:
            return ""
        return f"exit code {self.process.exitcode}: {_ours(stderr.decode(errors='replace'))}"

    def _end(self) -> None:
        while data := os.read(self.reports.fileno(), 65_536):
            self._report += data
        self.process.join()


def _ours(stderr: str) -> str:
    """The last output of a process; of stacks only the frames of this repository."""
    lines = stderr.splitlines()
    theirs = [
        line.startswith('  File "') and "/recorder/" not in line and "/tests/" not in line for line in lines
    ]
    return "\n".join(line for line, left_out in zip(lines, theirs, strict=True) if line and not left_out)


@dataclass(frozen=True, slots=True)
class Report:
    """Writes reports to the campaign, and can be passed to other processes."""

    pipe: Connection

    def __call__(self, line: str) -> None:
        os.write(self.pipe.fileno(), line.encode())


def _run(
    writer: Connection, errors: Connection, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.setsid()  # a kill of the process group reaches the children, too
    os.dup2(errors.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.dump_traceback_later(STUCK_AFTER, exit=True)
    work(Report(writer), *arguments)


@contextmanager
def child(work: Callable[..., None], *arguments: object) -> Iterator[Child]:
    """A child process, which is gone afterwards in any case."""
    found = Child(work, *arguments)
    try:
        yield found
    finally:
        if found.process.is_alive():
            found.kill()
        found.reports.close()
        found.errors.close()


# -- rounds that might not end -----------------------------------------------------------------------------------


def isolated(play: Callable[[Round], Verdict]) -> Callable[[Round], Verdict]:
    """Play a round in a child process, so that a round that hangs is reported and ended."""
    return partial(_isolated, play)


def _isolated(play: Callable[[Round], Verdict], at: Round) -> Verdict:
    with child(_play, play, at) as process:
        failure = process.end()
    if failure or not process.report:
        return Verdict(breaches=[failure or "no verdict"])
    return Verdict(**json.loads(process.report))


def _play(report: Report, play: Callable[[Round], Verdict], at: Round) -> None:
    logging.getLogger().addHandler(logging.NullHandler())  # errors are expected here, so none is printed
    report(json.dumps(asdict(play(at))))
    # Threads that still run, such as those of a recorder after a failed round, end with this process.
    os._exit(0)
