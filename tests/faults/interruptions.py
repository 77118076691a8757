"""The garbage collector and signal handlers run at any moment, also while their thread holds a lock of recorder."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay import Replay
from tests.faults.campaign import Fault, Round
from tests.faults.models import Numbered, config_of, model_token, question
from tests.faults.producer import Report, Speaker, child, line_of, note, turns
from tests.oracle import Verdict, judge, record

#: How long a round lasts (seconds), and how many places of runs a thread has.
_SECONDS = 1.5
_A_THREAD = 20_000


class Session:
    """An object of the application that has a stream or a replay and is part of a reference cycle."""

    def __init__(self, held: Any) -> None:
        self.held, self.me = held, self


@contextmanager
def _often_collected(chance: random.Random) -> Iterator[None]:
    """Inside, the garbage collector runs after every few new objects."""
    before = gc.get_threshold()
    gc.set_threshold(chance.choice([1, 5, 50]), 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)


# -- the garbage collector ---------------------------------------------------------------------------------------


def leave_streams(report: Report, url: str, first: int, seed: str) -> None:
    """Two threads leave streams in reference cycles, which the collector ends at any place, and stream others."""
    chance = random.Random(seed)
    history = ChatHistoryCallback(url, flush_interval=0.01)
    model = Numbered(callbacks=[history])
    over = time.monotonic() + _SECONDS
    lines: list[str] = []

    def stream(first: int) -> None:
        for number in itertools.count(first):
            if time.monotonic() > over:
                return
            left = number % 2 == 1
            stream = model.stream(question(number), config=config_of(number))
            count = sum(1 for _ in zip(range(10 if left else 100), stream, strict=False))
            if left:
                Session(stream)
            # The last chunk of a complete stream is its end and no token.
            lines.append(line_of(number, count if left else count - 1, None if left else "complete"))

    threads = [threading.Thread(target=stream, args=(first + place * _A_THREAD,)) for place in range(2)]
    with _often_collected(chance):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    gc.collect()
    history.flush().wait(20)
    report("".join(lines))
    history.close().wait(20)


def leave_replays(report: Report, url: str, first: int, seed: str) -> None:
    """Two threads leave replays and their streams in reference cycles, and play others."""
    chance = random.Random(seed)
    with ChatHistoryCallback(url) as history:
        record(history, reply="replayed")
    over = time.monotonic() + _SECONDS

    def play() -> None:
        while time.monotonic() < over:
            replay = Replay(url)
            stream = replay.stream(speed=None)
            assert next(stream).content == "replayed"
            Session((stream, replay) if chance.random() < 0.5 else stream)
            # The iterator holds a reference to its replay, so the replay is not collected.
            assert next(Replay(url).stream(speed=None)).content == "replayed"

    threads = [threading.Thread(target=play) for _ in range(2)]
    with _often_collected(chance):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


# -- signals -----------------------------------------------------------------------------------------------------


def handle_signals(report: Report, url: str, first: int, seed: str) -> None:
    """A signal handler calls the recorder in the middle of the recorder's calls on the main thread."""
    chance = random.Random(seed)
    history = ChatHistoryCallback(url, flush_interval=0.001)
    speaker, handlers = Speaker(history, first, report), Speaker(history, first + _A_THREAD, report)
    inside = False

    def handle(*_signal: object) -> None:
        nonlocal inside
        if inside:
            return
        inside = True
        if not handlers.open_runs:
            handlers.begin()
        handlers.say(handlers.open_runs[0], 3)
        history.stats()
        history.flush()
        if chance.random() < 0.2:
            handlers.finish(handlers.open_runs[0])
        inside = False

    signal.signal(signal.SIGALRM, handle)
    interval = chance.choice([0.0003, 0.001, 0.005])
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    over = time.monotonic() + _SECONDS
    for _ in turns(speaker, random.Random(f"{seed} turns"), most=200):
        if time.monotonic() > over:
            break
        speaker.acknowledge()
    signal.setitimer(signal.ITIMER_REAL, 0)
    handlers.acknowledge()
    for each in (speaker, handlers):
        for number in each.open_runs:
            each.finish(number)
    speaker.acknowledge()
    handlers.close()


def interrupt(report: Report, url: str, first: int, seed: str) -> None:
    """Ctrl-C comes in the middle of calls and the program goes on; acknowledged tokens are stored, calls end."""
    chance = random.Random(seed)
    history = ChatHistoryCallback(url, flush_interval=0.001)
    over = time.monotonic() + _SECONDS

    def press() -> None:
        moments = random.Random(f"{seed} moments")
        while time.monotonic() < over:
            time.sleep(moments.uniform(0, 0.03))
            os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    presser.start()
    for place in itertools.count():
        if time.monotonic() > over:
            break
        # The interrupted token may be in the queue or not, so its run gets no more tokens.
        speaker = Speaker(history, first + 10 * place, report)
        with suppress(KeyboardInterrupt):
            for _ in turns(speaker, chance, most=100):
                speaker.acknowledge()
    while presser.is_alive():
        with suppress(KeyboardInterrupt):
            presser.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    speaker = Speaker(history, first + _A_THREAD, report)
    speaker.say(speaker.begin(), 10)
    speaker.close()


def _played(work: Callable[..., None], **options: Any) -> Callable[[Round], Verdict]:
    def play(at: Round) -> Verdict:
        with child(work, at.url, at.number(0), str(at.seed)) as process:
            failure = process.end()
            note(at.ledger, process.report)
        verdict = judge(at.url, at.ledger, unended=None, **options)
        if failure:
            verdict.breaches.append(failure)
        return verdict

    return play


FAULTS = [
    Fault("collector", "streams ended by the collector anywhere", _played(leave_streams, text=model_token)),
    Fault(
        "replays",
        "replays closed by the collector anywhere",
        _played(leave_replays, text=lambda *_: "replayed"),
    ),
    Fault("signals", "signal handlers that call the recorder", _played(handle_signals)),
    Fault("keyboard", "Ctrl-C in the middle of any call", _played(interrupt)),
]
