"""`python -m tests.faults` plays the campaign and prints the table. It exits with 1 on a breach."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import platform
import random
import sqlite3
import sys
import time
from collections.abc import Sequence

from tests import postgres
from tests.faults.campaign import BOTH, POSTGRES, SQLITE, Fault, Row, plays
from tests.faults.table import printed

#: Modules with a list `FAULTS`.
MODULES = (
    "kills",
    "calls",
    "cuts",
    "driver_calls",
    "forks",
    "ends",
    "interruptions",
    "full_queue",
    "files",
    "writer_errors",
    "cancels",
    "clocks",
)


def faults() -> list[Fault]:
    """All faults, in the order in which they are played."""
    return [fault for name in MODULES for fault in importlib.import_module(f"tests.faults.{name}").FAULTS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; return 1 for a breach, else 0."""
    options = _options(arguments)
    where = _where(options.url)
    logging.getLogger().addHandler(logging.NullHandler())  # errors are expected here, so none is printed
    chosen = [fault for fault in faults() if options.only is None or fault.name in options.only]
    rows = [Row(fault, database) for fault in chosen for database in fault.on if database in options.on]
    print(f"Seed {options.seed}; {_machine(options.on)}.", flush=True)
    began = time.monotonic()
    share = options.seconds / max(1, len(rows))
    try:
        for row in rows:
            for seed in plays(row, options.seed, share, options.rounds, where):
                _progress(row, seed)
    except KeyboardInterrupt:
        print("Stopped; the table has what was played until now.", file=sys.stderr)
    print(printed(rows))
    acknowledged = sum(row.verdict.acknowledged for row in rows)
    seconds = time.monotonic() - began
    print(
        f"\n{sum(row.rounds for row in rows):,} rounds, {acknowledged:,} tokens acknowledged, {seconds:.0f} s"
    )
    return int(any(row.broken for row in rows))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = [fault.name for fault in faults()]
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=300, help="for all rounds together (default 300)")
    parser.add_argument("--rounds", type=int, help="of each fault, in place of --seconds")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {','.join(names)}")
    parser.add_argument(
        "--on", type=lambda text: text.split(","), default=BOTH, help="sqlite, postgres, or both (default)"
    )
    parser.add_argument(
        "--url",
        help="play on the disk of this SQLite file, or on the server of this Postgres database, in new files and "
        "databases; what is there is not touched",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; choose of {', '.join(names)}")
    if unknown := set(options.on) - set(BOTH):
        parser.error(f"there is no database {', '.join(sorted(unknown))}; choose of {', '.join(BOTH)}")
    if options.url:
        options.on = (SQLITE,) if options.url.startswith(SQLITE) else (POSTGRES,)
    return options


def _where(url: str | None) -> str | None:
    """The SQLite URL beside which files are made. A Postgres URL becomes the server of the tests."""
    if url is None or url.startswith(SQLITE):
        return url
    os.environ[postgres.GIVEN] = url
    return None


def _machine(databases: Sequence[str]) -> str:
    words = [f"Python {platform.python_version()}"]
    if SQLITE in databases:
        words.append(f"SQLite {sqlite3.sqlite_version}")
    if POSTGRES in databases:
        [(version,)] = postgres.fetch(postgres.server(), "SHOW server_version")
        words.append(f"Postgres {version}")
    return ", ".join(words)


def _progress(row: Row, seed: int) -> None:
    if sys.stderr.isatty():
        print(
            f"\r\033[K{row.fault.title} on {row.database}, seed {seed}", end="\r", file=sys.stderr, flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
