"""Scripts end without waiting for the recorder: all is stored at the exit, or one line says how much is not."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from tests.faults.campaign import Fault, Round
from tests.faults.producer import Speaker, note, turns
from tests.faults.proxy import proxy
from tests.oracle import Verdict, judge, start_python

#: The ways in which the script ends, and its exit code.
ENDS = {
    "the last line": 0,
    "sys.exit": 3,
    "an error": 1,
    "close() without wait": 0,
    "with, and an error": 1,
    "async with, and an error": 1,
    "Ctrl-C in the stream": 130,
    "Ctrl-C in asyncio.run": 130,
    "a handler of SIGTERM that closes": 0,
    "a handler of SIGTERM that exits": 3,
    "a daemon thread that goes on": 0,
}
#: The ways in which the script closes while the database is away and Ctrl-C comes.
CLOSING = ("with", "async with", "close().wait()", "close() without wait")
_SCRIPT = "from tests.faults.ends import script; script()"
#: How long the database is away while a script closes (seconds).
_AWAY = 1.0


def script() -> None:
    """The code of the process, with the arguments `url first seed end closing`: print what was handed over, and end."""
    url, first, seed, end, moment = sys.argv[1:]
    chance = random.Random(seed)
    history = ChatHistoryCallback(url, flush_interval=chance.choice([0.01, 0.1, 3600]))
    speaker = Speaker(history, int(first), lambda line: print(line, end=""))
    for _ in range(chance.randrange(1, 20)):
        speaker.say(speaker.begin(), chance.randrange(200))
        if chance.random() < 0.5:
            speaker.finish(speaker.open_runs[0])
    if chance.random() < 0.5:
        history.flush().wait(20)
    if moment == "closing":
        _close_while_away(speaker, end)
    else:
        _end(speaker, end)


def _handed_over(speaker: Speaker) -> None:
    speaker.report_new(speaker.lines())
    sys.stdout.flush()


def _end(speaker: Speaker, end: str) -> None:
    history = speaker.history
    _handed_over(speaker)
    if end == "sys.exit":
        sys.exit(3)
    if end == "an error":
        raise LookupError("mine")
    if end == "close() without wait":
        history.close()
    elif end == "with, and an error":
        with history:
            raise LookupError("mine")
    elif end == "async with, and an error":
        asyncio.run(_raise_inside(history))
    elif end == "Ctrl-C in the stream":
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    elif end == "Ctrl-C in asyncio.run":
        asyncio.run(_interrupt_inside(history))
    elif end == "a handler of SIGTERM that closes":
        _terminate(lambda *_signal: history.close())
    elif end == "a handler of SIGTERM that exits":
        _terminate(lambda *_signal: sys.exit(3))
    elif end == "a daemon thread that goes on":
        threading.Thread(target=_go_on, args=(speaker,), daemon=True).start()


def _terminate(handler: Callable[..., Any]) -> None:
    signal.signal(signal.SIGTERM, handler)
    os.kill(os.getpid(), signal.SIGTERM)


def _go_on(speaker: Speaker) -> None:
    """Record more runs, which are not reported, until the interpreter ends."""
    for _ in turns(Speaker(speaker.history, speaker.first + 50_000, lambda _line: None), random.Random(1)):
        pass


async def _raise_inside(history: ChatHistoryCallback) -> None:
    async with history:
        raise LookupError("mine")


async def _interrupt_inside(history: ChatHistoryCallback) -> None:
    async with history:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)


def _close_while_away(speaker: Speaker, end: str) -> None:
    """Wait until the database is away, then close; Ctrl-C comes during the wait."""
    print("ready", flush=True)
    sys.stdin.readline()
    speaker.say(speaker.begin(), 100)
    _handed_over(speaker)
    threading.Timer(_AWAY / 3, os.kill, (os.getpid(), signal.SIGINT)).start()
    if end == "with":
        with speaker.history:
            pass
    elif end == "async with":
        asyncio.run(_close_on_a_loop(speaker.history))
    elif end == "close().wait()":
        speaker.history.close().wait()
    else:
        speaker.history.close()
        time.sleep(0.01)


async def _close_on_a_loop(history: ChatHistoryCallback) -> None:
    async with history:
        pass


# -- the rounds --------------------------------------------------------------------------------------------------


def end_without_close(at: Round) -> Verdict:
    """The database works, and the script ends in one of many ways."""
    end = at.chance.choice(list(ENDS))
    process = start_python(_SCRIPT, at.url, at.number(0), at.seed, end, "")
    out, err = process.communicate(timeout=60)
    return _judged(at, f"end by {end}", out, err, process.returncode, ENDS[end])


def interrupt_while_closing(at: Round) -> Verdict:
    """The database is away for a second while the script closes, and Ctrl-C comes."""
    end = at.chance.choice(CLOSING)
    with away_at_will(at) as (url, away):
        process = start_python(_SCRIPT, url, at.number(0), at.seed, end, "closing")
        assert process.stdin is not None
        assert process.stdout is not None
        ready = process.stdout.readline()
        away(True)
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(_AWAY)
        away(False)
        out, err = process.communicate(timeout=60)
    return _judged(at, f"Ctrl-C while closing by {end}", out if ready else "", err, process.returncode, None)


def _judged(at: Round, what: str, out: str, err: str, code: int, expected: int | None) -> Verdict:
    """Judge the round; everything that was handed over counts as acknowledged."""
    note(at.ledger, out)
    verdict = judge(at.url, at.ledger)
    if not at.ledger:
        verdict.breaches.append("nothing was handed over")
    if expected is not None and code not in (expected, -signal.SIGINT if expected == 130 else expected):
        verdict.breaches.append(f"exit code {code} and not {expected}")
    if not verdict.exact:
        verdict.breaches.append(f"{what}: exit code {code}, stderr {err[-1500:]!r}")
    return verdict


@contextmanager
def away_at_will(at: Round) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """Yield a URL, and a function that takes the database away or gives it back."""
    if not at.is_sqlite:
        with proxy(at.url) as server:
            yield server.url, lambda away: setattr(server, "stalled", away)
        return
    with closing(sqlite3.connect(at.path, isolation_level=None, timeout=20)) as other:
        yield at.url, partial(_lock, other)


def _lock(other: sqlite3.Connection, away: bool) -> None:
    other.execute("BEGIN IMMEDIATE" if away else "ROLLBACK")


FAULTS = [
    Fault("end", "the script ends without waiting", end_without_close),
    Fault("interrupt", "Ctrl-C while closing, database away", interrupt_while_closing),
]
