"""Plays rounds of faults, each on a database of its own, and adds up the verdicts."""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests import postgres
from tests.oracle import Ledger, Verdict, new_url

SQLITE, POSTGRES = "sqlite", "postgres"
BOTH = (SQLITE, POSTGRES)
#: The numbers of a round's runs begin at its seed times this.
RUNS_A_ROUND = 100_000


class LeftOut(Exception):
    """Raised by a round that cannot be played here, with the reason."""


@dataclass
class Round:
    """One round: its database, its random numbers and what was acknowledged."""

    seed: int
    url: str
    #: A folder of this round, which is deleted afterwards.
    folder: Path
    chance: random.Random
    ledger: Ledger = field(default_factory=dict)
    #: The place of the first run of a producer, where the round has several.
    first: int = 0

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self.url.startswith(SQLITE)

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.removeprefix("sqlite:///"))

    def number(self, place: int) -> int:
        """The number of the run at this place, which no other round uses."""
        return self.seed * RUNS_A_ROUND + self.first + place


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    #: One word that chooses the fault on the command line, and its title in the table.
    name: str
    title: str
    play: Callable[[Round], Verdict]
    #: Databases on which it can happen.
    on: Sequence[str] = BOTH


@dataclass
class Row:
    """The results of one fault on one database."""

    fault: Fault
    database: str
    rounds: int = 0
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)
    #: The reason why it was not played.
    left_out: str | None = None
    #: Seeds of the rounds that were not EXACT.
    broken: list[int] = field(default_factory=list)


@contextmanager
def place(database: str, where: str | None = None, *, empty: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield the URL of a new database, with tables unless `empty`, and a folder; delete both afterwards.

    `where` is a SQLite URL. The folder is made beside that file, which is not changed.
    """
    beside = Path(where.removeprefix("sqlite:///")).resolve().parent if where else None
    # A short name: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="faults", dir=beside, ignore_cleanup_errors=True) as name:
        if database == SQLITE:
            yield f"sqlite:///{name}/history.db" if empty else new_url(Path(name)), Path(name)
            return
        url = postgres.new_database(empty=empty)
        try:
            yield url, Path(name)
        finally:
            postgres.drop(url)


def play(fault: Fault, database: str, seed: int, where: str | None = None) -> Verdict:
    """Play one round; an exception that it raises is a breach."""
    chance = random.Random(f"{fault.name} {database} {seed}")
    with place(database, where) as (url, folder):
        try:
            return fault.play(Round(seed, url, folder, chance))
        except LeftOut:
            raise
        except Exception as error:
            lines = traceback.format_exception(error)
            print("".join(lines), file=sys.stderr)
            return Verdict(breaches=[f"{type(error).__name__}: {error}"])


def plays(row: Row, seed: int, seconds: float, rounds: int | None, where: str | None) -> Iterator[int]:
    """Play rounds for so many seconds, or so many rounds, and add them to the row; yield each seed before its round."""
    over = time.monotonic() + seconds
    for number in count():
        done = time.monotonic() >= over if rounds is None else number >= rounds
        if done and number:
            return
        yield seed + number
        began = time.monotonic()
        try:
            verdict = play(row.fault, row.database, seed + number, where)
        except LeftOut as reason:
            row.left_out = str(reason)
            return
        row.rounds += 1
        row.seconds += time.monotonic() - began
        row.verdict.add(verdict)
        if not verdict.exact:
            row.broken.append(seed + number)
