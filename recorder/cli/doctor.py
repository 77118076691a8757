"""`recorder doctor`: whether a database is being recorded into, what is wrong with it, and what to do.

It only reads. It creates no file, not even SQLite's own beside a file that nobody has open, and upgrades nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.cli.console import plural, size
from recorder.cli.program import program
from recorder.core.blocking_loop import BlockingLoop
from recorder.core.clock import now
from recorder.core.escaping import unescape
from recorder.errors import RecorderError
from recorder.instrumentation.aiohttp_version import OLDEST, too_old_aiohttp
from recorder.storage.activity import Activity, MissingTokens, activity_of
from recorder.storage.dialects import SQLite, file_of, masked, open_error, parse_url
from recorder.storage.leftovers import Leftover, leftovers_of
from recorder.storage.migrate import old_message, stored_revisions
from recorder.storage.rights import READING, WRITING, connected_role, grants, in_words, lacking, opened_state
from recorder.storage.row_checks import readable
from recorder.storage.store import SqlStore

#: Less free space than this on the disk of a SQLite file is wrong (bytes).
LEAST_FREE = 256 * 2**20
_SHOWN_REASONS = 2

_SERVER = """
SELECT current_setting('server_version'), pg_is_in_recovery(),
    coalesce(current_setting('default_transaction_read_only', true), 'off') = 'on'"""


class Finding(NamedTuple):
    """Something that is wrong."""

    problem: str
    #: What to do about it; None if the problem says it.
    next_step: str | None = None


@dataclass(slots=True)
class Diagnosis:
    """What was found out about one database. None stands for what could not be found out."""

    url: str
    #: The file, for SQLite.
    file: Path | None
    #: The name of the database's program, and its version.
    program: str
    program_version: str | None = None
    schema: str | None = None
    can_read: bool | None = None
    can_write: bool | None = None
    #: Whether there is no file, or no table in it.
    is_empty: bool = False
    bytes: int | None = None
    #: Free space on the disk of a SQLite file.
    free_bytes: int | None = None
    activity: Activity | None = None
    leftovers: Sequence[Leftover] = ()
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def examine(url: str) -> Diagnosis:
    """Examine a database. Raises `ConfigError` for text that is no URL of a database; all else is a finding."""
    parsed = parse_url(url)
    is_file = parsed.drivername == "sqlite"
    file = file_of(parsed) if is_file else None
    found = Diagnosis(masked(url), file, "SQLite" if is_file else "Postgres")
    if file is not None:
        found.program_version = sqlite3.sqlite_version
        found.findings += _rights_on_file(found, file)
    try:
        with readable((DBAPIError,)), BlockingLoop() as loop:
            loop.run(_read(found, SqlStore(url, read_only=True)))
    except RecorderError as error:
        problem, _, next_step = str(error).partition("; ")
        found.findings.append(Finding(problem, next_step or None))
    if file is not None:
        found.findings += _disk(found, file)
    found.findings += _libraries()
    return found


async def _read(found: Diagnosis, store: SqlStore) -> None:
    if isinstance(store.dialect, SQLite):
        store.dialect.leaves_no_trace = True
    try:
        async with store.transaction() as connection:
            is_current = await _open(found, store, connection)
            found.bytes = await store.dialect.size(connection)
        if is_current and found.can_read:
            found.activity = await activity_of(store)
            found.findings += _activity(found.activity)
    except store.errors as error:
        raise open_error(store.dialect, error) from error
    finally:
        await store.close()


async def _open(found: Diagnosis, store: SqlStore, connection: AsyncConnection) -> bool:
    """Find out the schema and the rights. Whether the tables are those of this version."""
    if found.file is None:
        found.findings += await connection.run_sync(_rights_on_server, found)
    state = await connection.run_sync(
        opened_state, store.url, parameters=store.dialect.url.query, writes=False
    )
    if state == "empty":
        found.findings.append(
            Finding("Nothing was recorded here yet: there are no tables", "record something")
        )
        return False
    found.schema = ", ".join(await connection.run_sync(stored_revisions))
    if state == "old":
        problem, _, command = old_message(store.url).partition(". Run: ")
        found.findings.append(Finding(problem, f"run: {command}"))
    return state == "current"


def _rights_on_file(found: Diagnosis, file: Path) -> Iterator[Finding]:
    """Recording needs the folder, too: SQLite has its log beside the file."""
    if not file.exists():
        found.is_empty = True  # opening it says so
        return
    found.can_read = os.access(file, os.R_OK)
    found.can_write = os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
    if found.can_read and not found.can_write:
        which = file if not os.access(file, os.W_OK) else f"the folder {file.parent}"
        yield Finding(f"This user cannot write {which}", "change its permissions, or record as its owner")


def _rights_on_server(connection: Connection, found: Diagnosis) -> list[Finding]:
    [(version, is_standby, is_read_only)] = connection.exec_driver_sql(_SERVER).all()
    role = connected_role(connection)
    unread, unwritten = lacking(connection, READING), lacking(connection, WRITING)
    found.program_version = version
    found.can_read = not unread
    found.can_write = not (unwritten or is_standby or is_read_only)
    findings = []
    if lacks := lacking(connection, {**WRITING, **_merged()}):
        problem = f"The role {role.name} lacks rights: {in_words(lacks)}"
        findings.append(Finding(problem, f"as the owner of the tables, run: {grants(lacks, role.name)}"))
    if is_standby:
        findings.append(Finding("The server is a standby, which only reads", "name the primary in the URL"))
    elif is_read_only:
        findings.append(
            Finding(
                "Transactions of this role only read (default_transaction_read_only)",
                f"run: ALTER ROLE {role.name} RESET default_transaction_read_only",
            )
        )
    return findings


def _merged() -> dict[str, tuple[str, ...]]:
    """The rights for reading and writing together."""
    return {name: tuple(dict.fromkeys((*READING[name], *WRITING.get(name, ())))) for name in READING}


def _disk(found: Diagnosis, file: Path) -> Iterator[Finding]:
    if not file.parent.is_dir():
        return
    found.free_bytes = shutil.disk_usage(file.parent).free
    if found.free_bytes < LEAST_FREE:
        yield Finding(
            f"Only {size(found.free_bytes)} are free on the disk of {file}",
            "make room; a full disk loses nothing until the queue in memory is full",
        )
    is_used = found.activity is not None and found.activity.processes > 0
    found.leftovers = leftovers_of(file, is_used=is_used, at=time.time())
    for each in found.leftovers:
        if each.kind == "damaged":
            yield Finding(
                f"A damaged database was set aside as {each.path.name} ({size(each.bytes)})",
                f"read it: {program()} ls --url sqlite:///{each.path}; then move it away or delete it",
            )


def _libraries() -> Iterator[Finding]:
    """What this environment has that `attach()` and `recorder run` do not record."""
    if (version := too_old_aiohttp()) is not None:
        yield Finding(
            f"aiohttp {version} is installed here, and model calls of its sessions are not recorded",
            f"install aiohttp {OLDEST} or newer",
        )


def _activity(found: Activity) -> Iterator[Finding]:
    for producer in found.stalled:
        yield Finding(
            f"Process {producer.pid} has open runs and has stored nothing for {age(producer.heartbeat_at)}, though it "
            "still runs",
            "look at its log and at history.stats().last_error",
        )
    if found.dead_runs:
        subject = "1 run is" if found.dead_runs == 1 else f"{found.dead_runs:,} runs are"
        yield Finding(
            f"{subject} without an end, because the process that recorded has died",
            "look why it died; its tokens until then are stored, and the next recorder marks the runs interrupted",
        )
    recent = found.recently_missing
    if recent.gaps:
        yield Finding(_missing_in_words(recent), _about_missing(recent))


def _missing_in_words(missing: MissingTokens) -> str:
    reasons = "; ".join(unescape(reason) for reason in missing.reasons[:_SHOWN_REASONS])
    return f"{plural(missing.tokens, 'token')} of runs of the last 24 hours are missing: {reasons}"


def _about_missing(missing: MissingTokens) -> str:
    shown = f'see which: {program()} sql "SELECT * FROM gaps"'
    if missing.quarantined:
        return f"{shown}; a trigger or a constraint may have refused them, the log has the error"
    return f"{shown}; if the queue was full, the database is too slow or was away: raise max_queue_bytes"


def age(moment: datetime) -> str:
    """How long ago a time was, in its largest unit: "3 s", "5 min", "2 h", "1 day"."""
    seconds = max(0, int((now() - moment).total_seconds()))
    for unit, length in (("s", 60), ("min", 60), ("h", 48)):
        if seconds < length:
            return f"{seconds} {unit}"
        seconds //= 24 if unit == "h" else length
    return plural(seconds, "day")
