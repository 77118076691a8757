"""A SQLite file that is locked, moved, deleted, replaced or truncated while runs stream."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.campaign import SQLITE, Fault, Round
from tests.faults.producer import Speaker, isolated, speaking, turns, warm_up
from tests.oracle import Acknowledged, Ledger, Verdict, judge, new_url

#: A truncated file is reported within this time (seconds).
_REPORTED_WITHIN = 5.0


def lock_for_a_while(at: Round) -> Verdict:
    """Another program locks the file three times for up to three seconds, and everything is stored afterwards."""
    with (
        speaking(at) as speaker,
        closing(sqlite3.connect(at.path, isolation_level=None, timeout=20)) as other,
    ):
        for _, _ in zip(range(3), turns(speaker, at.chance), strict=False):
            other.execute(at.chance.choice(["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]))
            speaker.say(speaker.begin(), 100)
            time.sleep(at.chance.uniform(0, 3))
            other.execute("ROLLBACK")
            speaker.acknowledge()
        speaker.close()
    return judge(at.url, at.ledger)


def take_away(at: Round) -> Verdict:
    """The file is moved, deleted or replaced by another recording while runs stream.

    The old file has what was acknowledged before, and the new file has what comes after, with a gap row for the tokens
    of a run that are not in it.
    """
    how = at.chance.choice(["moved", "deleted", "replaced"])
    old = at.folder / "old" / at.path.name
    old.parent.mkdir()
    with speaking(at) as speaker:
        warm_up(speaker, at.chance, 10)
        before = dict(speaker.counts)
        _take_away(at.path, old, how)
        warm_up(speaker, at.chance, 10)
        speaker.close()
    verdict = _judge_new_file(at, before, how)
    if how == "moved":
        ledger = {number: Acknowledged(count) for number, count in before.items()}
        verdict.add(judge(f"sqlite:///{old}", ledger, unended=None))
    return verdict


def _take_away(path: Path, old: Path, how: str) -> None:
    if how == "moved":
        path.rename(old)
    elif how == "deleted":
        path.unlink()
    else:
        new_url(path.parent, "other.db")
        (path.parent / "other.db").replace(path)


def _judge_new_file(at: Round, before: dict[int, int], how: str) -> Verdict:
    """Judge the new file, which has later tokens and gaps for the earlier ones."""
    ledger: Ledger = {}
    for number, known in at.ledger.items():
        if known.tokens > before.get(number, 0) or number not in before:
            ledger[number] = known
    verdict = judge(at.url, ledger, gaps=True, unended=None)
    if not verdict.exact:
        verdict.breaches.append(f"the file was {how}")
    return verdict


def truncate(at: Round) -> Verdict:
    """The file is truncated in place; the recorder reports it, and stores what comes later in a sound file."""
    size = at.chance.choice([0, 0.3, 0.7])
    verdict = Verdict()
    with speaking(at) as speaker, _messages() as messages:
        warm_up(speaker, at.chance, 20)
        with at.path.open("r+b") as file:
            file.truncate(int(at.path.stat().st_size * size) // 4096 * 4096)
        last = max(speaker.counts)
        if not _is_reported(speaker, messages):
            verdict.breaches.append(f"nothing was reported within {_REPORTED_WITHIN:g} s")
        speaker.say(speaker.begin(), 50)
        speaker.close()
    after = {number: known for number, known in at.ledger.items() if number > last}
    verdict.add(judge(at.url, after, gaps=True, unended=None))
    if not verdict.exact:
        verdict.breaches.append(f"truncated to {size:.0%}: {messages}")
    return verdict


def _is_reported(speaker: Speaker, messages: list[str]) -> bool:
    """Record something, and return whether an error is logged in time."""
    over = time.monotonic() + _REPORTED_WITHIN
    speaker.say(speaker.begin(), 5)
    while not messages and time.monotonic() < over:
        time.sleep(0.01)
    return bool(messages)


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Yield the errors that the recorder logs inside."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Collector(logging.ERROR)
    logging.getLogger("recorder").addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger("recorder").removeHandler(handler)


FAULTS = [
    Fault("lock", "file locked by another program", isolated(lock_for_a_while), (SQLITE,)),
    Fault("move", "file moved, deleted or replaced", isolated(take_away), (SQLITE,)),
    Fault("truncate", "file truncated in place", isolated(truncate), (SQLITE,)),
]
