"""Processes fork while they record, and workers end without `atexit`; every token is stored once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.replay import Replay
from recorder.storage.rows import INTERRUPTED
from tests.faults.campaign import Fault, Round
from tests.faults.kills import recover
from tests.faults.producer import Report, Speaker, child, line_of, note, turns, warm_up
from tests.oracle import Verdict, judge

#: How many places of runs a process with its children has, and one child.
_A_FAMILY, _A_PROCESS = 10_000, 1_000
#: What the parent does at the moment of the fork; which processes close first.
MOMENTS = ("idle", "queued", "transaction", "closing", "loop", "thread", "followed")
ORDERS = ("parent first", "children first", "together")


# -- forks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forked:
    """A forked child, and the pipe that is closed to let it close its recorder."""

    pid: int
    pipe: int


def fork_once(report: Report, url: str, first: int, seed: str, moment: str, order: str) -> None:
    """Record, fork at a moment, record in both processes, close in an order, and record with another recorder."""
    chance = random.Random(seed)
    speaker = Speaker(ChatHistoryCallback(url, flush_interval=chance.choice([0, 0.01])), first, report)
    warm_up(speaker, chance)
    with _busy(speaker.history, first + _A_PROCESS, report, seed, when=moment == "transaction"):
        if moment == "queued":
            speaker.say(speaker.begin(), 50)
        if moment == "closing":
            speaker.history.close()
        if moment == "followed":
            _follow(url, speaker)
        if moment == "loop":
            children = asyncio.run(_fork_on_a_loop(speaker, seed, chance))
        elif moment == "thread":
            children = _in_thread(lambda: _fork(speaker, seed, chance))
        else:
            children = _fork(speaker, seed, chance)
        if order == "children first":
            _end(children)
        if moment != "closing":
            warm_up(speaker, chance, 5)
    if moment != "closing":
        speaker.close()
    with ChatHistoryCallback(url, flush_interval=0) as other:
        second = Speaker(other, first + 9 * _A_FAMILY, report)
        warm_up(second, chance, 5)
        if order == "parent first":
            _end(children)
        warm_up(second, chance, 5)
        second.close()
    if order == "together":
        _end(children)


@contextmanager
def _busy(
    history: ChatHistoryCallback, first: int, report: Report, seed: str, *, when: bool
) -> Iterator[None]:
    """Inside, another thread streams through the same recorder, if `when` is true."""
    over = threading.Event()

    def stream() -> None:
        speaker, chance = Speaker(history, first, report), random.Random(f"{seed} beside")
        for _ in turns(speaker, chance, most=10):
            if over.is_set():
                break
            speaker.acknowledge()

    thread = threading.Thread(target=stream)
    if when:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if when:
            thread.join()


def _follow(url: str, speaker: Speaker) -> None:
    """Start a thread that replays a streaming run with `follow`, through a connection of its own."""
    speaker.say(speaker.begin(), 20)
    speaker.acknowledge()
    run_id = str(uuid.UUID(int=speaker.open_runs[-1]))

    def follow() -> None:
        with Replay(url) as replay:
            for _ in replay.stream(run_id, speed=None, follow=True):
                pass

    threading.Thread(target=follow, daemon=True).start()


async def _fork_on_a_loop(speaker: Speaker, seed: str, chance: random.Random) -> list[Forked]:
    flush = asyncio.ensure_future(_flushed(speaker))
    await asyncio.sleep(0)
    children = _fork(speaker, seed, chance)
    await flush
    return children


async def _flushed(speaker: Speaker) -> None:
    await speaker.history.flush()


def _in_thread(work: Any) -> list[Forked]:
    found: list[Forked] = []
    thread = threading.Thread(target=lambda: found.extend(work()))
    thread.start()
    thread.join()
    return found


def _fork(speaker: Speaker, seed: str, chance: random.Random, apart: int = _A_FAMILY) -> list[Forked]:
    found: list[Forked] = []
    for place in range(2, 2 + chance.randrange(1, 4)):
        time.sleep(chance.uniform(0, 0.02))
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            for each in found:  # an open copy here would keep the pipe open when the parent closes it
                os.close(each.pipe)
            os.close(write)
            _be_a_child(speaker, place * apart, read, f"{seed} {place}")
        os.close(read)
        found.append(Forked(pid, write))
    return found


def _be_a_child(parents: Speaker, place: int, pipe: int, seed: str) -> None:
    """Record until the pipe is closed, and some more; a grandchild does the same. Does not return."""
    try:
        chance = random.Random(seed)
        speaker = Speaker(parents.history, parents.first + place, parents.report)
        if parents.history.recorder.closed:
            speaker.history = ChatHistoryCallback(parents.history.recorder.url, flush_interval=0)
        warm_up(speaker, chance, chance.randrange(5))
        has_children = place >= _A_FAMILY and chance.random() < 0.2
        grandchildren = _fork(speaker, seed, chance, _A_PROCESS) if has_children else []
        os.read(pipe, 1)
        warm_up(speaker, chance, 10)
        _end(grandchildren)
        if chance.random() < 0.7:
            speaker.close()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _end(children: list[Forked]) -> None:
    """Let the children close, and wait for their ends."""
    for each in children:
        os.close(each.pipe)
    ends = [os.waitpid(each.pid, 0)[1] for each in children]
    if any(ends):
        raise RuntimeError(f"children ended with {ends}")


def forks(at: Round) -> Verdict:
    """A process forks at some moment, and the processes close in some order."""
    moment, order = at.chance.choice(MOMENTS), at.chance.choice(ORDERS)
    with child(fork_once, at.url, at.number(0), str(at.seed), moment, order) as parent:
        failure = parent.end()
        note(at.ledger, parent.report)
    recover(at.url)
    verdict = judge(at.url, at.ledger)
    if failure:
        verdict.breaches.append(f"fork ({moment}, {order}): {failure}")
    return verdict


# -- workers -----------------------------------------------------------------------------------------------------

_TOKENS_OF_A_WORKER = 50
_history: ChatHistoryCallback | None = None


def employ(report: Report, url: str, first: int, method: str, pool: bool, warm: bool) -> None:
    """Four workers record and end without a flush or a close, and everything that they recorded is stored."""
    global _history
    if method == "fork":
        _history = ChatHistoryCallback(url)
        if warm:
            warm_up(Speaker(_history, first, report), random.Random(first))
    context: Any = multiprocessing.get_context(method)
    firsts = [first + place * _A_PROCESS for place in range(1, 5)]
    if pool:
        with ProcessPoolExecutor(2, mp_context=context) as workers:
            list(workers.map(work, [url] * 4, firsts))
    else:
        processes = [context.Process(target=work, args=(url, number)) for number in firsts]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"workers ended with {[process.exitcode for process in processes]}")
    for number in firsts:
        report(line_of(number, _TOKENS_OF_A_WORKER, None))
    if _history is not None:
        _history.close().wait(30)


def work(url: str, first: int) -> None:
    """The code of a worker: begin a run that is still open when the process ends."""
    global _history
    _history = _history or ChatHistoryCallback(url)
    speaker = Speaker(_history, first, lambda _line: None)
    speaker.say(speaker.begin(), _TOKENS_OF_A_WORKER)


def workers(at: Round) -> Verdict:
    """The workers are those of `multiprocessing` or of an executor, forked or spawned."""
    method = at.chance.choice(["fork", "fork", "fork", "spawn", "forkserver"])
    pool, warm = at.chance.random() < 0.5, at.chance.random() < 0.5
    with child(employ, at.url, at.number(0), method, pool, warm) as parent:
        failure = parent.end()
        note(at.ledger, parent.report)
    verdict = judge(at.url, at.ledger, unended=INTERRUPTED)
    if failure or not verdict.exact:
        words = f"{method}, {'a pool' if pool else 'processes'}, {'warm' if warm else 'cold'}"
        verdict.breaches.append(f"workers ({words}): {failure}")
    return verdict


FAULTS = [
    Fault("fork", "fork at any moment, closed in any order", forks),
    Fault("workers", "workers that end without atexit", workers),
]
