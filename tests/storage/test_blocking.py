"""A store for synchronous code: opened, queried and closed without an event loop of the caller."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from recorder.errors import ConfigError, StoreError
from recorder.storage.blocking import BlockingStore
from tests.oracle import new_url

COUNT = "SELECT count(*) AS number FROM runs"


def count_runs(url: str) -> int:
    """The number of runs in a database, from synchronous code."""
    with BlockingStore(url, read_only=True) as database:
        [row] = database.run(database.store.rows(COUNT))
    return int(row["number"])


def test_it_opens_queries_and_closes(database: str) -> None:
    """On both databases."""
    assert count_runs(database) == 0


def test_it_works_on_a_thread_with_a_running_loop(database: str) -> None:
    """As in a notebook; the thread beside it ends with the store."""

    async def cell() -> int:
        return count_runs(database)

    before = set(threading.enumerate())
    assert asyncio.run(cell()) == 0
    assert not [
        one for one in set(threading.enumerate()) - before if one.name.startswith("recorder-blocking")
    ]


def test_a_database_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """The file is none of SQLite's; the error names it."""
    path = tmp_path / "letter.db"
    path.write_text("Dear Ada," * 100)
    with pytest.raises(StoreError, match=r"letter\.db cannot be opened"):
        BlockingStore(f"sqlite:///{path}", read_only=True)


def test_an_invalid_url_is_refused() -> None:
    """Before there is a loop."""
    with pytest.raises(ConfigError):
        BlockingStore("mysql://host/name")


def test_the_store_is_closed_though_a_query_failed(tmp_path: Path) -> None:
    """Another program may have the file at once."""
    url = new_url(tmp_path)
    with pytest.raises(Exception, match="no such table"), BlockingStore(url, read_only=True) as database:
        database.run(database.store.rows("SELECT * FROM nothing_of_this_name"))
    assert count_runs(url) == 0
