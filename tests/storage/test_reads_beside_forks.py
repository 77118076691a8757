"""Reading and importing while another thread forks the process: SQLite's connection closes, and nobody sees it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from recorder import export
from recorder.storage import fork_safe
from recorder.storage.store import SqlStore
from tests.oracle import new_url, observed_statements, sql
from tests.stores import append, using, whole_run


@pytest.fixture(autouse=True)
def impatient_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork does not wait for open transactions."""
    monkeypatch.setattr(fork_safe, "TRANSACTION_TIMEOUT", 0.01)


def fork() -> None:
    """What happens in the parent before and after a fork of its other thread."""

    def before_and_after() -> None:
        fork_safe._forks.before()
        fork_safe._forks.in_parent()

    thread = threading.Thread(target=before_and_after)
    thread.start()
    thread.join()


def forking_after(word: str) -> tuple[list[str], Callable[[str], None]]:
    """Statements so far, and a listener that forks once, after the first one with this word."""
    seen: list[str] = []

    def tell(statement: str) -> None:
        seen.append(statement)
        if word in statement and [word in each for each in seen].count(True) == 1:
            fork()

    return seen, tell


@pytest.mark.parametrize("read", ["rows", "fetch", "size"])
def test_a_fork_in_a_transaction_that_reads(tmp_path: Path, read: str) -> None:
    """It is rolled back between two calls of SQLite, and tried again."""
    url = new_url(tmp_path)
    append(url, whole_run(1))
    statement = "SELECT count(*) AS number FROM runs"

    async def story(store: SqlStore) -> Any:
        if read == "rows":
            return await store.rows(statement)
        if read == "size":
            return await store.size() > 0
        return [row._asdict() for row in await store.fetch(text(statement))]

    seen, tell = forking_after("BEGIN" if read == "size" else "SELECT count")
    with observed_statements(tell, after=True):
        found = using(url, story)
    assert found == (True if read == "size" else [{"number": 1}])
    assert sum("BEGIN" in each for each in seen) == 2


def test_a_fork_in_a_call_that_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is interrupted in the middle of a query, and the query is tried again."""
    calls: list[int] = []
    interrupted = threading.Event()

    class Handle(fork_safe.Handle):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            sqlite3.Connection.create_function(self, "hang", 0, hang)

        def interrupt(self) -> None:
            super().interrupt()
            interrupted.set()

    def hang() -> int:
        calls.append(1)
        if len(calls) == 1:
            threads.append(threading.Thread(target=fork))
            threads[0].start()
            interrupted.wait(30)
        return len(calls)

    threads: list[threading.Thread] = []
    monkeypatch.setattr("recorder.storage.dialects.sqlite.Handle", Handle)
    found = using(new_url(tmp_path), lambda store: store.rows("SELECT hang() AS calls FROM alembic_version"))
    threads[0].join()
    assert found == [{"calls": 2}]


@pytest.mark.parametrize("word", ["BEGIN", 'INSERT INTO "segments"', 'INSERT INTO "gaps"'])
def test_a_fork_while_an_import_writes(tmp_path: Path, word: str) -> None:
    """Its transaction is rolled back and stored again, and everything is counted once."""
    url, other = new_url(tmp_path), new_url(tmp_path, "other.db")
    append(url, [*whole_run(1), *whole_run(2)])
    export.export(url, tmp_path / "export.jsonl")
    seen, tell = forking_after(word)
    with observed_statements(tell, after=True):
        done = export.import_(other, tmp_path / "export.jsonl")
    assert any(word in each for each in seen)
    assert (done.new.runs, done.there.runs) == (2, 0)
    for table in ("runs", "segments", "gaps", "messages"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"
        assert sql(other, query) == sql(url, query)
