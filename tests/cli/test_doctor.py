"""`recorder doctor`: whether anything is recorded, what is wrong, what to do, and that it leaves no trace."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import make_url

from recorder import ChatHistoryCallback, __version__
from recorder.cli import doctor
from recorder.core.clock import iso, now
from recorder.storage.schema import HEAD
from tests import postgres
from tests.cli.test_commands import cli
from tests.oracle import begin, new_url, record, say, sql, start_python
from tests.stores import execute

KEYS = {
    "ok", "state", "summary", "url", "problems", "schema", "newest_schema", "can_read", "can_write",
    "last_commit_at", "newest_run_at", "newest_message_at", "processes", "streaming_runs", "stalled_runs",
    "dead_runs", "gaps", "missing_tokens", "quarantined_tokens", "leftovers", "bytes", "free_bytes", "versions",
}  # fmt: skip


#: A process that records a run until it is killed.
KILLED = """
import sys, uuid
from recorder import ChatHistoryCallback
history = ChatHistoryCallback(sys.argv[1])
history.on_llm_start({}, ["Hi"], run_id=uuid.uuid4())
history.flush().wait()
print("ready", flush=True)
sys.stdin.read()
"""


def diagnosed(url: str) -> dict[str, Any]:
    """Return what the command prints as JSON; its exit code says whether something is wrong."""
    result = cli("doctor", "--json", url=url)
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.keys() == KEYS
    assert result.exit_code == (0 if found["ok"] else 1)
    assert found["ok"] == (not found["problems"])
    return found


def problem(url: str) -> str:
    """Return the only problem of a database, with its next step."""
    [found] = diagnosed(url)["problems"]
    return f"{found['problem']} | {found['next_step']}"


def make_silent(url: str) -> None:
    """Let the last heartbeat of all processes be two minutes old."""
    past = now() - timedelta(minutes=2)
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("UPDATE producers SET heartbeat_at = ?", (iso(past),))
    else:
        postgres.fetch(url, "UPDATE producers SET heartbeat_at = $1", past)


# -- is it recording? ------------------------------------------------------------------------------------------


def test_it_says_that_runs_stream(database: str) -> None:
    """The first line has the last commit and the runs that stream."""
    with ChatHistoryCallback(database) as history:
        for _ in range(2):
            say(history, begin(history), ["a"])
        history.flush().wait()
        found = cli("doctor", url=database)
        assert found.stdout.splitlines()[0] == "recording: last commit 0 s ago, 2 runs stream"
        assert "Nothing is wrong." in found.stdout
        assert found.exit_code == 0
        about = diagnosed(database)
    assert (about["state"], about["streaming_runs"], about["processes"]) == ("recording", 2, 1)
    assert (about["schema"], about["can_read"], about["can_write"]) == (HEAD, True, True)
    assert about["versions"].keys() - {"sqlite", "postgres"} == {"recorder", "python"}
    assert about["versions"]["recorder"] == __version__
    assert None not in about["versions"].values()


def test_a_recorder_without_runs_is_ready(database: str) -> None:
    """Its heartbeat says that it can store."""
    with ChatHistoryCallback(database):
        about = diagnosed(database)
    assert (about["state"], about["processes"]) == ("ready", 1)
    assert about["summary"].endswith(" ago, no run streams")


def test_silence_is_said_with_its_length(database: str) -> None:
    """Nothing is wrong, and the screen says where to look if an application should record."""
    with ChatHistoryCallback(database) as history:
        record(history)
    make_silent(database)
    found = cli("doctor", url=database)
    assert found.exit_code == 0
    assert "not recording: nothing was stored for" in found.stdout
    assert "compare its URL with this one" in found.stdout
    assert diagnosed(database)["state"] == "silent"


def test_a_process_that_runs_and_stores_nothing_is_wrong(database: str) -> None:
    """Its runs are open and its heartbeat is old, but it is still there: its database does not take anything."""
    with ChatHistoryCallback(database, heartbeat_interval=30) as history:
        begin(history)
        history.flush().wait()
        make_silent(database)
        about = diagnosed(database)
    assert (about["state"], about["stalled_runs"], about["dead_runs"]) == ("stalled", 1, 0)
    assert about["summary"].startswith("NOT recording: 1 run waits for the database; last commit 2 min ago")
    assert f"Process {os.getpid()} has open runs and has stored nothing for 2 min" in str(about["problems"])


def test_runs_of_a_killed_process_are_wrong(database: str) -> None:
    """The doctor sees them at once, and leaves the marking to the next recorder."""
    process = start_python(KILLED, database)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    process.kill()
    process.communicate()
    about = diagnosed(database)
    assert (about["state"], about["dead_runs"], about["processes"]) == ("silent", 1, 0)
    assert "1 run is without an end" in about["problems"][0]["problem"]
    assert sql(database, "SELECT status FROM runs") == [("streaming",)]
    if database.startswith("sqlite"):
        assert [each["kind"] for each in about["leftovers"]] == ["log"]


# -- what is missing ------------------------------------------------------------------------------------------


def test_recent_gaps_are_wrong_and_older_ones_are_counted(database: str) -> None:
    """A gap stays in the database, so a day later it is no reason to alarm anybody."""
    with ChatHistoryCallback(database) as history:
        run_id = record(history)
    add = "INSERT INTO gaps VALUES ('{}', {}, {}, '{}')"
    execute(database, add.format(run_id, 1, 7, "the queue was full"))
    execute(database, add.format(run_id, 8, 2, "quarantined: no such thing"))
    about = diagnosed(database)
    assert (about["gaps"], about["missing_tokens"], about["quarantined_tokens"]) == (2, 9, 2)
    [found] = about["problems"]
    assert found["problem"] == (
        "9 tokens of runs of the last 24 hours are missing: the queue was full; quarantined: no such thing"
    )
    assert "SELECT * FROM gaps" in found["next_step"]
    yesterday = now() - timedelta(days=1, minutes=1)
    if database.startswith("sqlite"):
        execute(database, f"UPDATE runs SET started_at = '{iso(yesterday)}'")
    else:
        postgres.fetch(database, "UPDATE runs SET started_at = $1", yesterday)
    about = diagnosed(database)
    assert (about["ok"], about["missing_tokens"]) == (True, 9)
    assert "9 tokens in 2 gaps, 2 of them quarantined" in cli("doctor", url=database).stdout


# -- files -----------------------------------------------------------------------------------------------------


def test_it_creates_and_changes_nothing(tmp_path: Path) -> None:
    """Not even the log that SQLite makes for readers; and without a file it makes none."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history)
    before = {each.name: (each.stat().st_mtime_ns, each.read_bytes()) for each in tmp_path.iterdir()}
    assert list(before) == ["history.db"]
    assert cli("doctor", url=url).exit_code == 0
    assert {each.name: (each.stat().st_mtime_ns, each.read_bytes()) for each in tmp_path.iterdir()} == before
    absent = f"sqlite:///{tmp_path / 'absent.db'}"
    assert problem(absent).startswith("There is no file ")
    assert diagnosed(absent)["summary"] == "not recording: nothing was recorded here yet"
    assert list(before) == [each.name for each in tmp_path.iterdir()]


def test_what_is_left_beside_the_file_is_listed(tmp_path: Path) -> None:
    """Damaged files are wrong; a part of an export is only named, and one that is being written is not."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history)
        (tmp_path / "history.db.damaged-1").write_bytes(b"12345")
        (tmp_path / "history.db.damaged-1-wal").touch()
        old = tmp_path / ".song.jsonl.gz.abcd_123.part"
        old.touch()
        os.utime(old, (0, time.time() - 7200))
        (tmp_path / ".song.jsonl.gz.abcd_124.part").touch()
        about = diagnosed(url)
    assert about["leftovers"] == [
        {"path": str(old), "kind": "export", "bytes": 0},
        {"path": str(tmp_path / "history.db.damaged-1"), "kind": "damaged", "bytes": 5},
    ]
    [found] = about["problems"]
    assert found["problem"] == "A damaged database was set aside as history.db.damaged-1 (5 bytes)"


def test_a_full_disk_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording into a full disk waits in memory, so it is told before."""
    url = new_url(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    assert "Only 5.0 KB are free on the disk of" in problem(url)


@pytest.mark.parametrize(
    ("version", "is_wrong"), [("3.11.18", True), ("3.9", True), ("3.12.0", False), ("4.0.0a1", False)]
)
def test_an_aiohttp_that_is_not_recorded_is_wrong(
    version: str, is_wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions send as ever, and their model calls are missing."""
    url = new_url(tmp_path)
    ChatHistoryCallback(url).close().wait()
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    expected = [
        {
            "problem": f"aiohttp {version} is installed here, and model calls of its sessions are not recorded",
            "next_step": "install aiohttp 3.12 or newer",
        }
    ]
    assert diagnosed(url)["problems"] == (expected if is_wrong else [])


def test_a_file_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder must be writable, too, because SQLite has its log there."""
    url = new_url(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK or Path(path) != tmp_path)
    assert problem(url) == (
        f"This user cannot write the folder {tmp_path} | change its permissions, or record as its owner"
    )


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        ("DROP TABLE alembic_version", "already has"),
        ("UPDATE alembic_version SET version_num = '0001'", "has the tables of an older recorder"),
        ("UPDATE alembic_version SET version_num = '9999'", "was written by a newer recorder"),
    ],
)
def test_a_database_of_another_version_is_wrong(database: str, prepare: str, expected: str) -> None:
    """The problem has the command to run, and nothing is upgraded."""
    execute(database, prepare)
    about = diagnosed(database)
    assert expected in about["problems"][0]["problem"]
    assert about["state"] == "unknown"
    if "0001" in prepare:
        assert about["schema"] == "0001"
        assert about["problems"][0]["next_step"].startswith("run: recorder migrate --url ")


def test_a_file_that_is_no_database_is_wrong(tmp_path: Path) -> None:
    """The problem is the same as the error of other commands."""
    (tmp_path / "text.db").write_text("This is text. " * 100)
    found = problem(f"sqlite:///{tmp_path / 'text.db'}")
    assert found.endswith(
        "file is not a database | it is not a SQLite database, so name another file or move it away"
    )


# -- Postgres --------------------------------------------------------------------------------------------------


@pytest.fixture
def guest_url(postgres_url: str) -> Iterator[str]:
    """A role that may read everything and write nothing."""
    name = f"reader_{make_url(postgres_url).database}"
    postgres.fetch(postgres_url, f"CREATE ROLE {name} LOGIN")
    postgres.fetch(postgres_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield make_url(postgres_url).set(username=name).render_as_string(hide_password=False)
    postgres.fetch(postgres_url, f"DROP OWNED BY {name}")
    postgres.fetch(postgres_url, f"DROP ROLE {name}")


def test_rights_that_lack_are_named_with_the_grant(postgres_url: str, guest_url: str) -> None:
    """The statements can be run as they are; then nothing is wrong."""
    about = diagnosed(guest_url)
    assert (about["can_read"], about["can_write"]) == (True, False)
    [found] = about["problems"]
    inserted = "INSERT on public.annotations, public.context_messages, public.frames, public.gaps"
    assert inserted in found["problem"]
    for statement in found["next_step"].partition("run: ")[2].split("; "):
        postgres.fetch(postgres_url, statement)
    assert diagnosed(guest_url)["can_write"]


def test_a_role_that_only_reads_by_setting_cannot_write(postgres_url: str, guest_url: str) -> None:
    """The setting refuses every batch, whatever is granted."""
    role = make_url(guest_url).username
    postgres.fetch(postgres_url, f"GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    postgres.fetch(postgres_url, f"ALTER ROLE {role} SET default_transaction_read_only = on")
    assert problem(guest_url) == (
        "Transactions of this role only read (default_transaction_read_only) | "
        f"run: ALTER ROLE {role} RESET default_transaction_read_only"
    )


def test_a_server_that_is_away_is_wrong() -> None:
    """The problem has the driver's text and what to check; no password is shown."""
    found = problem("postgresql://me:secret@127.0.0.1:1/db")
    assert "cannot be opened" in found
    assert "check that the server runs" in found
    assert "secret" not in found


# -- the screen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_screen_fits_the_terminal(tmp_path: Path, columns: int) -> None:
    """No line is wider than the terminal, and one screen has all of it."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        record(history)
        (tmp_path / "history.db.damaged-1").touch()
        lines = cli("doctor", url=url, columns=columns).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert columns < 80 or len(lines) <= 24


def test_text_that_is_no_url_is_an_error_as_elsewhere() -> None:
    """Exit code 1 and a message; an unknown option is a usage error."""
    assert cli("doctor", "--url", "nonsense").exit_code == 1
    assert cli("doctor", "--sideways").exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3, "3 s"), (61, "1 min"), (7199, "1 h"), (47 * 3600, "47 h"), (49 * 3600, "2 days")],
)
def test_an_age_has_its_largest_unit(seconds: int, expected: str) -> None:
    """A time in the future, from a machine whose clock is ahead, is now."""
    assert doctor.age(now() - timedelta(seconds=seconds + 0.5)) == expected
    assert doctor.age(now() + timedelta(seconds=seconds)) == "0 s"
