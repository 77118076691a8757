"""On a running event loop the writer's thread imports the database's libraries, and a fork waits for the import."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.errors import ConfigError, MissingExtra
from recorder.recording.deferred_store import DeferredStore, is_plain
from recorder.storage.dialects import dialect_of, parse_url
from recorder.storage.store_interface import Store
from recorder.testing import MemoryStore
from tests.oracle import new_url, record, run_python, sql

#: The beginning of each script. `found` has the threads that imported SQLAlchemy and a driver for the first time.
SHARED = """
import asyncio, os, sys, threading, uuid, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12: it forks beside threads
from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage

LIBRARIES = {"sqlalchemy", "sqlalchemy.ext.asyncio", "aiosqlite", "asyncpg"}
found = {}

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in LIBRARIES:
            found[name] = threading.current_thread().name
            importing(name)

def importing(name):
    pass

sys.meta_path.insert(0, Watch())
"""

STORY = """
async def main():
    async with history() as recording:
        recording.add_messages([HumanMessage("Hi")], conversation_id="c")
        await recording.flush()

asyncio.run(main())
print(sorted(set(found.values())))
"""
BY_URL = """
def history():
    return ChatHistoryCallback(sys.argv[1])
"""
#: The databases of the tests have URLs with a parameter.
BY_STORE = """
def history():
    from recorder.recording.deferred_store import DeferredStore

    def make():
        from recorder.storage.store import SqlStore
        return SqlStore(sys.argv[1])

    return ChatHistoryCallback(store=DeferredStore(make))
"""

#: The writer stops inside of the import until the fork begins. The child records, and imports a part of SQLAlchemy.
FORK = """
begun, forking = threading.Event(), threading.Event()

def importing(name):
    if name == "sqlalchemy.ext.asyncio":
        begun.set()
        assert forking.wait(40)

async def main():
    history = ChatHistoryCallback(sys.argv[1])
    # What is registered last is called first.
    os.register_at_fork(before=forking.set)
    assert begun.wait(40)
    child = os.fork()
    history.add_messages([HumanMessage("Hi")], conversation_id="parent" if child else "child")
    if child:
        await history.flush()
        assert os.waitpid(child, 0)[1] == 0
        await history.close()
    else:
        import sqlalchemy.ext.asyncio
        history.flush().wait(40)
        history.close().wait(40)
        os._exit(0)

asyncio.run(main())
"""


def assert_imported_by_the_writer(construct: str, url: str) -> None:
    """No library is imported by the thread of the event loop, and the message is stored."""
    done = run_python(SHARED + construct + STORY, url, timeout=50)
    assert (done.stdout, done.stderr) == ("['recorder-writer']\n", "")
    assert sql(url, "SELECT content FROM transcripts") == [("Hi",)]


def test_the_writers_thread_imports_the_libraries(tmp_path: Path) -> None:
    """They are SQLAlchemy, its asynchronous part, and the driver of SQLite."""
    assert_imported_by_the_writer(BY_URL, new_url(tmp_path))


def test_the_writers_thread_imports_the_driver_of_any_database(database: str) -> None:
    """The same store serves both databases."""
    assert_imported_by_the_writer(BY_STORE, database)


def test_the_import_does_not_count_as_time_of_the_database() -> None:
    """It takes longer than `open_timeout` on a busy machine; a strict recorder is not refused for that."""
    imported = threading.Event()

    def make() -> Store:
        assert imported.wait(30)
        return MemoryStore()

    async def main() -> None:
        history = ChatHistoryCallback(store=DeferredStore(make), strict=True, open_timeout=0.05)
        opened = asyncio.ensure_future(asyncio.wait_for(history.opened(), 20))
        done, _ = await asyncio.wait({opened}, timeout=0.2)  # four times as long
        assert not done
        imported.set()
        await opened
        await history.close()

    asyncio.run(main())


def test_a_fork_waits_for_the_import(tmp_path: Path) -> None:
    """Parent and child both record, and the child can import the same libraries."""
    url = new_url(tmp_path)
    done = run_python(SHARED + FORK, url, timeout=55)
    assert (done.returncode, done.stderr) == (0, "")
    assert sql(url, "SELECT conversation_id FROM transcripts ORDER BY 1") == [("child",), ("parent",)]


def constructed_on_a_loop(url: str) -> None:
    """Construct a history on an event loop, and nothing else."""

    async def story() -> None:
        ChatHistoryCallback(url)

    asyncio.run(story())


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///no-such-folder/a.db",
        "no url",
        "postgresql://me@host/db?sslmode=no",
    ],
)
def test_a_wrong_url_is_still_raised_by_the_constructor(url: str) -> None:
    """The libraries are imported at once for a URL that may be wrong."""
    with pytest.raises(ConfigError):
        constructed_on_a_loop(url)


def test_a_missing_driver_is_still_raised_by_the_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen without an import."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingExtra):
        constructed_on_a_loop("postgresql://localhost/db")


@pytest.mark.parametrize(
    "url",
    ["sqlite:///chat_history.db", "sqlite:////tmp/chats.db", "postgresql://me:word@db.example.com:5432/chats",
     "postgres://localhost/chats", "postgres://localhost/chats?sslmode=require"],
)  # fmt: skip
def test_plain_urls_are_right(url: str) -> None:
    """The database accepts them."""
    assert is_plain(url)
    dialect_of(parse_url(url)).check()


@pytest.mark.parametrize(
    "url",
    ["sqlite:///", "sqlite:////tmp", "sqlite:///no-such-folder/a.db", "sqlite:///:memory:",
     "sqlite:///a.db?mode=memory", "postgresql://me@host/db?sslmode=no", "chats.db",
     Path("chats.db"), "sqlite:///a b.db"],
)  # fmt: skip
def test_other_urls_are_left_to_the_libraries(url: object) -> None:
    """They may be right or wrong."""
    assert not is_plain(url)


def test_a_setting_of_sqlite_is_not_plain_for_postgres() -> None:
    """`sync` decides with the URL."""
    assert is_plain("sqlite:///a.db", sync="process")
    assert not is_plain("postgresql://localhost/a", sync="process")


def test_an_error_of_the_import_is_raised_by_opened_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The recorder is refused, as by any other error of opening."""

    def broken() -> Store:
        raise ImportError("a library is broken")

    async def story() -> None:
        history = ChatHistoryCallback(store=DeferredStore(broken))
        with pytest.raises(ImportError, match="a library is broken"):
            await history.opened()
        await history.close()

    with caplog.at_level(logging.ERROR, "recorder"):
        asyncio.run(story())
    assert "nothing is recorded" in caplog.text


def test_the_store_is_made_once_and_used_then() -> None:
    """Runs are stored in it."""
    made: list[MemoryStore] = []

    def make() -> MemoryStore:
        made.append(MemoryStore())
        return made[-1]

    with ChatHistoryCallback(store=DeferredStore(make)) as history:
        run_id = record(history, reply="a")
    assert [list(store.seals) for store in made] == [[str(run_id)]]
