"""The Nth call of the driver raises, before or after it is done, for N = 1 and so on up to the last call."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiosqlite
import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import Transaction

from tests.faults.campaign import Fault, Round
from tests.faults.producer import isolated, speaking
from tests.oracle import Verdict, hasty, judge

#: A round lets every eighth call fail, and its seed chooses the first one.
STEP = 8

#: The methods of the drivers through which every statement goes.
_OF_SQLITE: tuple[tuple[Any, str], ...] = (
    (aiosqlite.Connection, "_connect"),
    (aiosqlite.Connection, "_execute"),
)
_OF_POSTGRES: tuple[tuple[Any, str], ...] = (
    (asyncpg, "connect"),
    *((asyncpg.Connection, name) for name in ("execute", "prepare", "fetchrow", "close")),
    *((PreparedStatement, name) for name in ("fetch", "fetchrow", "executemany")),
    *((Transaction, name) for name in ("start", "commit", "rollback")),
)

Failure = Callable[[], Exception]
FAILURES_OF_SQLITE: tuple[Failure, ...] = (
    lambda: sqlite3.OperationalError("disk I/O error"),
    lambda: sqlite3.OperationalError("database is locked"),
    lambda: sqlite3.OperationalError("database or disk is full"),
    lambda: MemoryError(),
)
FAILURES_OF_POSTGRES: tuple[Failure, ...] = (
    lambda: asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    lambda: asyncpg.SerializationError("could not serialize access"),
    lambda: asyncpg.DeadlockDetectedError("deadlock detected"),
    lambda: asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
    lambda: asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    lambda: asyncpg.InterfaceError("connection is closed"),
    lambda: ConnectionResetError(104, "Connection reset by peer"),
    lambda: TimeoutError(),
    lambda: MemoryError(),
)


@contextmanager
def nth_call(place: int, failure: Failure, *, after: bool) -> Iterator[list[str]]:
    """Inside, the Nth call of either driver raises, before or after it is done; yields the names of the calls."""
    calls: list[str] = []

    def failing(owner: Any, name: str) -> Callable[..., Any]:
        original = getattr(owner, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            calls.append(f"{owner.__name__}.{name}")
            number = len(calls)
            if number == place and not after:
                raise failure()
            result = await original(*arguments, **options)
            if number == place:
                raise failure()
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (*_OF_SQLITE, *_OF_POSTGRES):
            patch.setattr(owner, name, failing(owner, name))
        yield calls


def sweep(at: Round) -> Verdict:
    """For each place, a recorder of its own records a run and an added message into the same database."""
    failure = at.chance.choice(FAILURES_OF_SQLITE if at.is_sqlite else FAILURES_OF_POSTGRES)
    after = at.chance.random() < 0.5
    place = 1 + at.seed % STEP
    verdict = Verdict()
    failed = True
    with hasty():
        while failed:
            with nth_call(place, failure, after=after) as calls:
                error = _record(at, place)
            failed = len(calls) >= place
            if error:
                when = "after" if after else "before"
                name = calls[place - 1] if failed else "no call"
                verdict.breaches.append(f"{failure()!r} {when} call {place} ({name}): {error}")
            place += STEP
    verdict.add(judge(at.url, at.ledger))
    return verdict


def _record(at: Round, place: int) -> str:
    """Record with one recorder, and return what went wrong, or an empty text."""
    own = Round(at.seed, at.url, at.folder, random.Random(place), at.ledger)
    own.first = 10 * place
    try:
        with speaking(own) as speaker:
            number = speaker.begin()
            speaker.acknowledge(20)
            speaker.say(number, 20)
            speaker.history.add_messages(f"added at {place}", conversation_id=f"added {at.seed} {place}")
            speaker.acknowledge(20)
            speaker.say(number, 20)
            speaker.close(20)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


FAULTS = [Fault("driver", "the Nth driver call raises, also when done", isolated(sweep))]
