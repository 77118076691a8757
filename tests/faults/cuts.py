"""Connections to Postgres are cut around COMMIT or anywhere else, lose a COMMIT, are slow, or stop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from tests import postgres
from tests.faults.campaign import POSTGRES, Fault, LeftOut, Round
from tests.faults.producer import isolated, speaking, turns, warm_up
from tests.faults.proxy import TROUBLES, Proxy, proxy
from tests.oracle import Verdict, hasty, judge

#: The timeout of a statement (seconds), instead of 30 s, so that a round is short.
_COMMAND_TIMEOUT = 1.0


@contextmanager
def short_timeouts() -> Iterator[None]:
    """Inside, a statement has one second, and the writer waits at most 1 ms between two attempts."""
    with pytest.MonkeyPatch.context() as patch, hasty():
        patch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", _COMMAND_TIMEOUT)
        yield


def cut_around_commit(at: Round) -> Verdict:
    """The connection is cut twenty times, each time at another byte of the COMMIT or of its answer."""
    troubles = [trouble for trouble in TROUBLES if trouble != "swallowed"]

    def aim(server: Proxy) -> None:
        server.at_commit = at.chance.choice(troubles)

    return _cut(at, aim, 20)


def cut_anywhere(at: Round) -> Verdict:
    """The connection is cut twenty times, after a random number of bytes in either direction."""

    def aim(server: Proxy) -> None:
        after = at.chance.randrange(5000)
        if at.chance.random() < 0.5:
            server.cut_after_sent = after
        else:
            server.cut_after_answered = after // 10

    return _cut(at, aim, 20)


def _cut(at: Round, aim: Callable[[Proxy], None], times: int) -> Verdict:
    with short_timeouts(), proxy(at.url) as server, speaking(at, server.url) as speaker:
        for _, _ in zip(range(times), turns(speaker, at.chance), strict=False):
            aim(server)
            speaker.acknowledge()
        server.at_commit = server.cut_after_sent = server.cut_after_answered = None
        speaker.close()
    return judge(at.url, at.ledger)


def swallow_commit(at: Round) -> Verdict:
    """A COMMIT never arrives, and neither side sees the other close; the rows must not stay locked."""
    with short_timeouts(), proxy(at.url) as server, speaking(at, server.url) as speaker:
        warm_up(speaker, at.chance)
        server.at_commit = "swallowed"
        for number in (speaker.begin(), *speaker.open_runs):
            speaker.say(number, 30)
        speaker.acknowledge(50)
        speaker.close()
    return judge(at.url, at.ledger)


def slow_network(at: Round) -> Verdict:
    """The network has 64 KB/s and a statement has one second, so batches become smaller until they get through."""
    with short_timeouts(), proxy(at.url) as server, speaking(at, server.url) as speaker:
        warm_up(speaker, at.chance)
        server.rate = 64_000
        for _ in range(8):
            speaker.say(speaker.begin(), at.chance.randrange(500, 1000))
        speaker.acknowledge(50)
        server.rate = None
        speaker.close()
    return judge(at.url, at.ledger)


def stopped_server(at: Round) -> Verdict:
    """The server's process for the connection is stopped by a signal, with a statement or without; every call ends."""
    if os.environ.get(postgres.GIVEN):
        raise LeftOut("the server was given by its URL and is not stopped")
    with short_timeouts(), speaking(at) as speaker:
        warm_up(speaker, at.chance)
        with _stopped(at.url):
            speaker.say(speaker.begin(), at.chance.randrange(50))
            if (
                at.chance.random() < 0.5
            ):  # over another connection, which is made after the time for a statement
                speaker.acknowledge(40)
            speaker.close()
    return judge(at.url, at.ledger)


def close_in_time(at: Round) -> Verdict:
    """The network stops, with a heartbeat on its way or without, and `close(1)` ends within 6 s."""
    verdict = Verdict()
    interval = at.chance.choice([0.05, 15])
    with hasty(), proxy(at.url) as server, speaking(at, server.url, heartbeat_interval=interval) as speaker:
        warm_up(speaker, at.chance)
        server.stalled = True
        time.sleep(at.chance.choice([0, 0.1]))
        _close_within(speaker.history, verdict, on_loop=at.chance.random() < 0.5)
        server.stalled = False
    verdict.add(judge(at.url, at.ledger, unended=None))
    return verdict


def _close_within(history: ChatHistoryCallback, verdict: Verdict, *, on_loop: bool) -> None:
    async def close() -> None:
        async with asyncio.timeout(20):
            await history.close(1)

    began = time.monotonic()
    try:
        asyncio.run(close()) if on_loop else history.close(1).wait(20)
    except TimeoutError:
        verdict.breaches.append("close(1) had not ended after 20 s")
    if (elapsed := time.monotonic() - began) > 6:
        verdict.breaches.append(f"close(1) took {elapsed:.1f} s")


@contextmanager
def _stopped(url: str) -> Iterator[None]:
    """Inside, the server's processes for the connections to this database are stopped."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with postgres.stopped([pid for (pid,) in postgres.fetch(url, query)]):
        yield


FAULTS = [
    Fault("commit", "connection cut around COMMIT", isolated(cut_around_commit), (POSTGRES,)),
    Fault("cut", "connection cut anywhere", isolated(cut_anywhere), (POSTGRES,)),
    Fault("swallow", "COMMIT swallowed by the network", isolated(swallow_commit), (POSTGRES,)),
    Fault("slow", "network of 64 KB/s", isolated(slow_network), (POSTGRES,)),
    Fault("stop", "server stopped by SIGSTOP", isolated(stopped_server), (POSTGRES,)),
    Fault("close", "close while the network stands still", isolated(close_in_time), (POSTGRES,)),
]
