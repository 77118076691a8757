"""`BlockingStore` opens, reads and closes a database from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from recorder.errors import ConfigError, StoreError
from recorder.storage.blocking import BlockingStore
from recorder.storage.store import SqlStore
from tests.oracle import new_url

COUNT = "SELECT count(*) AS number FROM runs"


def count_runs(url: str) -> int:
    """The number of runs in a database, from synchronous code."""
    with BlockingStore(url, read_only=True) as database:
        [row] = database.run(database.store.rows(COUNT))
    return int(row["number"])


def test_a_blocking_store_reads_a_database(database: str) -> None:
    """It needs no event loop of the caller."""
    assert count_runs(database) == 0


def test_a_blocking_store_works_on_a_thread_with_a_running_loop(database: str) -> None:
    """This is the case in a notebook; the store's own thread ends when it is closed."""

    async def cell() -> int:
        return count_runs(database)

    before = set(threading.enumerate())
    assert asyncio.run(cell()) == 0
    assert not [
        one for one in set(threading.enumerate()) - before if one.name.startswith("recorder-blocking")
    ]


def test_a_file_that_is_no_database_raises_a_store_error(tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / "letter.db"
    path.write_text("Dear Ada," * 100)
    with pytest.raises(StoreError, match=r"letter\.db cannot be opened"):
        BlockingStore(f"sqlite:///{path}", read_only=True)


def test_a_url_of_another_database_raises_a_config_error() -> None:
    """It raises before an event loop is made."""
    with pytest.raises(ConfigError):
        BlockingStore("mysql://host/name")


def test_the_store_is_closed_when_a_query_fails(tmp_path: Path) -> None:
    """Another store can open the file at once."""
    url = new_url(tmp_path)
    with pytest.raises(Exception, match="no such table"), BlockingStore(url, read_only=True) as database:
        database.run(database.store.rows("SELECT * FROM nothing_of_this_name"))
    assert count_runs(url) == 0


def test_the_store_is_closed_when_ctrl_c_comes_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the connection is open already."""

    class Interrupted(SqlStore):
        closed = False

        async def open(self) -> None:
            await super().open()
            raise KeyboardInterrupt

        async def close(self) -> None:
            await super().close()
            Interrupted.closed = True

    monkeypatch.setattr("recorder.storage.blocking.SqlStore", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        BlockingStore(new_url(tmp_path))
    assert Interrupted.closed
