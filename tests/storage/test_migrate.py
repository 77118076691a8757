"""Bringing a database to the newest schema: whole or not at all, one at a time, never over other tables."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import create_async_engine

from recorder.errors import ConfigError, SchemaError, StoreError
from recorder.storage import migrate, schema, views

ROOT = Path(__file__).resolve().parents[2]
#: What an upgrade of an empty database applies.
APPLIED = list(schema.REVISIONS)
#: The number of a migration that is not written yet.
NEXT = f"{int(schema.HEAD) + 1:04}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "history.db"


def url_of(path: Path) -> str:
    """Its URL."""
    return f"sqlite:///{path}"


def sql(path: Path, *statements: str) -> list[Any]:
    """Run statements as another program would; the rows of the last one."""
    with closing(sqlite3.connect(path)) as connection, connection:
        found = [connection.execute(statement).fetchall() for statement in statements]
    return found[-1]


def state(path: Path) -> str:
    """What recorder says of the file."""
    return migrate.connected(url_of(path), migrate.state)


def alembic(*arguments: str, url: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Alembic's own command line, from a folder with an alembic.ini."""
    environment = {**os.environ, "RECORDER_URL": url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "alembic", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python of its own that runs `code`, with recorder within reach."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_empty_file_gets_the_tables(path: Path) -> None:
    """Empty before, current after."""
    assert state(path) == "empty"
    assert migrate.upgrade(url_of(path)) == APPLIED
    assert state(path) == "current"


def test_a_second_upgrade_does_nothing(path: Path) -> None:
    """Not a byte changes."""
    migrate.upgrade(url_of(path))
    before = path.read_bytes()
    assert migrate.upgrade(url_of(path)) == []
    assert path.read_bytes() == before


def test_any_spelling_of_the_url_will_do(path: Path) -> None:
    """The asynchronous driver's URL names the same file."""
    assert migrate.upgrade(f"sqlite+aiosqlite:///{path}") == APPLIED
    assert migrate.upgrade(url_of(path)) == []


def test_another_database_is_refused() -> None:
    """By name, before any driver is looked for."""
    with pytest.raises(ConfigError, match=r"scheme 'mysql\S*' are not supported; use 'sqlite:///"):
        migrate.upgrade("mysql+pymysql://me:secret@host/db")


def test_a_new_file_has_the_chosen_page_size(path: Path) -> None:
    """It cannot be changed later."""
    migrate.upgrade(url_of(path))
    assert sql(path, "PRAGMA page_size") == [(schema.PAGE_SIZE,)]


def test_the_migrations_make_what_the_tables_say(path: Path, tmp_path: Path) -> None:
    """WITHOUT ROWID, partial indexes and views too, which `alembic check` does not compare."""
    migrate.upgrade(url_of(path))
    created = tmp_path / "created.db"
    with create_engine(url_of(created), poolclass=NullPool).begin() as connection:
        schema.metadata.create_all(connection)
        views.create(connection)
    assert schema_of(path) == schema_of(created)


def schema_of(path: Path) -> dict[str, Any]:
    """Columns of each table and whether it has a rowid; the text of all else. A column that a migration adds is written
    in another place of a table's text."""
    found = {}
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%' ORDER BY name"
    for kind, name, text in sql(path, query):
        columns = (
            [column[1:] for column in sql(path, f"PRAGMA table_xinfo({name})")] if kind == "table" else []
        )
        found[name] = [*columns, text.endswith("WITHOUT ROWID")] if columns else text
    return found


def test_the_newest_script_is_the_revision_of_the_code() -> None:
    """REVISIONS in tables.py lists the scripts, oldest first."""
    files = sorted((migrate.scripts() / "versions").glob("*.py"))
    named = [re.findall(r'^(?:down_)?revision = "?(\w+)"?$', file.read_text(), re.M) for file in files]
    older: list[str] = ["None", *schema.REVISIONS[:-1]]
    assert named == [list(pair) for pair in zip(schema.REVISIONS, older, strict=True)]
    assert schema.REVISIONS[-1] == schema.HEAD


def test_looking_at_a_database_loads_no_alembic(path: Path) -> None:
    """Opening one that is current is the usual case and stays quick."""
    migrate.upgrade(url_of(path))
    code = """
import sys
from recorder.storage import migrate
print(migrate.connected(sys.argv[1], migrate.state), "alembic" in sys.modules)
"""
    assert start(code, url_of(path)).communicate(timeout=30)[0] == "current False\n"


def test_alembic_finds_no_difference(path: Path) -> None:
    """`alembic check` from the repository's root, after recorder's own upgrade."""
    migrate.upgrade(url_of(path))
    checked = alembic("check", url=url_of(path))
    assert (checked.returncode, checked.stdout) == (0, "No new upgrade operations detected.\n"), (
        checked.stderr
    )


def test_plain_alembic_goes_up_and_down(path: Path) -> None:
    """Its own commands, the URL by `-x`, beside a table that is not ours."""
    sql(path, "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    assert (
        alembic("-x", f"url={url_of(path)}", "upgrade", "head", url="sqlite:////nowhere/at/all").returncode
        == 0
    )
    assert state(path) == "current"
    assert f"{schema.HEAD} (head)" in alembic("history", url=url_of(path)).stdout
    assert alembic("check", url=url_of(path)).returncode == 0
    assert alembic("downgrade", "base", url=url_of(path)).returncode == 0
    left = sql(path, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
    assert left == [("alembic_version",), ("notes",)]
    assert (state(path), migrate.upgrade(url_of(path))) == ("empty", APPLIED)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of alembic.ini and the migrations, to write new ones in."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(
        ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_autogenerate_writes_an_empty_migration(path: Path, copy: Path) -> None:
    """Nothing differs, so there is nothing to do in it; it gets the next number."""
    migrate.upgrade(url_of(path))
    made = alembic("revision", "--autogenerate", "-m", "no change", url=url_of(path), folder=copy)
    assert made.returncode == 0, made.stderr
    written = (copy / f"migrations/versions/{NEXT}_no_change.py").read_text()
    assert re.findall(r"^    (?!#|\"\"\").*", written, re.M) == ["    pass", "    pass"]


def test_autogenerate_writes_plain_types(path: Path, copy: Path) -> None:
    """A migration for columns that a file lacks names no class of ours, and brings the file up."""
    migrate.upgrade(url_of(path))
    for column in ("data", "message_id"):
        sql(path, f"ALTER TABLE annotations DROP COLUMN {column}")
    assert alembic("check", url=url_of(path)).returncode != 0
    made = alembic("revision", "--autogenerate", "-m", "columns", url=url_of(path), folder=copy)
    assert made.returncode == 0, made.stderr
    written = (copy / f"migrations/versions/{NEXT}_columns.py").read_text()
    assert "recorder" not in re.sub("#.*", "", written)
    assert alembic("upgrade", "head", url=url_of(path), folder=copy).returncode == 0
    assert alembic("check", url=url_of(path), folder=copy).returncode == 0


def test_an_error_at_any_statement_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Nothing half-made stays behind, and the next upgrade goes through."""
    counted = 0
    while True:
        path = tmp_path / f"{counted}.db"
        seen: list[str] = []

        def fail(
            _c: Any, _u: Any, statement: str, *_: Any, at: int = counted, seen: list[str] = seen
        ) -> None:
            seen.append(statement)
            if len(seen) == at + 1:
                raise KeyboardInterrupt

        event.listen(Engine, "before_cursor_execute", fail)
        try:
            applied = migrate.upgrade(url_of(path))
            break
        except KeyboardInterrupt:
            pass
        finally:
            event.remove(Engine, "before_cursor_execute", fail)
        assert (seen[-1], state(path), migrate.upgrade(url_of(path))) == (seen[-1], "empty", APPLIED)
        counted += 1
    assert applied == APPLIED
    assert counted == len(seen) > len(schema.metadata.tables)


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from recorder.storage import migrate

folder = sys.argv[1]
migrate.upgrade(f"sqlite:///{folder}/warm.db")
number, signalled = 0, True
while signalled:
    number += 1
    child = os.fork()
    if not child:
        seen = []
        def die(connection, cursor, statement, *_):
            seen.append(statement)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)
        event.listen(Engine, "after_cursor_execute", die)
        migrate.upgrade(f"sqlite:///{folder}/killed-{number}.db")
        os._exit(0)
    signalled = os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(number - 1)
"""


def test_a_process_killed_at_any_statement_is_made_good_by_the_next(tmp_path: Path) -> None:
    """SIGKILL after each statement of the upgrade, in a new file each time."""
    deaths = int(start(KILLED, tmp_path).communicate(timeout=50)[0])
    killed = [tmp_path / f"killed-{number}.db" for number in range(1, deaths + 1)]
    assert deaths > len(schema.metadata.tables)
    assert [state(path) for path in killed] == ["empty"] * deaths
    assert [migrate.upgrade(url_of(path)) for path in killed] == [APPLIED] * deaths
    assert {state(path) for path in killed} == {"current"}


UPGRADER = """
import sys
from recorder.storage import migrate
import alembic.command
print("ready", flush=True)
sys.stdin.readline()
print(migrate.upgrade(sys.argv[1]))
"""


def test_processes_that_open_a_new_file_at_once_all_succeed(path: Path) -> None:
    """Eight of them, let loose together: one applies the revision, the others find it there."""
    processes = [start(UPGRADER, url_of(path)) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert sorted(outputs) == [f"{APPLIED}\n", *["[]\n"] * 7]
    assert state(path) == "current"


def test_threads_may_upgrade_different_files_at_once(tmp_path: Path) -> None:
    """Alembic's module globals serve one at a time."""
    urls = [url_of(tmp_path / f"{number}.db") for number in range(6)]
    with ThreadPoolExecutor(len(urls)) as pool:
        assert list(pool.map(migrate.upgrade, urls)) == [APPLIED] * len(urls)


@pytest.mark.parametrize("begin", [None, "BEGIN IMMEDIATE"])
def test_an_asynchronous_connection_can_be_upgraded(path: Path, begin: str | None) -> None:
    """Through run_sync, whether or not the engine begins its transactions itself."""

    async def story() -> list[list[str]]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)
        if begin is not None:
            event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        async with engine.connect() as connection:
            return [await connection.run_sync(migrate.upgrade_connection) for _ in range(2)]

    assert asyncio.run(story()) == [APPLIED, []]
    assert state(path) == "current"


def test_two_upgrades_on_one_event_loop_are_refused_not_deadlocked(tmp_path: Path) -> None:
    """The one that comes second is told to wait."""

    async def one(name: str) -> list[str]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / name}", poolclass=NullPool)
        async with engine.connect() as connection:
            return await connection.run_sync(migrate.upgrade_connection)

    async def story() -> list[list[str] | BaseException]:
        return list(await asyncio.gather(one("a.db"), one("b.db"), return_exceptions=True))

    first, second = sorted(asyncio.run(story()), key=str)
    assert isinstance(first, StoreError)
    assert "await it before starting another" in str(first)
    assert second == APPLIED


def refused(path: Path) -> str:
    """The message of the refusal, the same from both doors; the file is not changed."""
    before = path.read_bytes()
    messages = set()
    doors: tuple[Callable[[Path], object], ...] = (state, lambda path: migrate.upgrade(url_of(path)))
    for door in doors:
        with pytest.raises(SchemaError) as caught:
            door(path)
        messages.add(str(caught.value))
    assert path.read_bytes() == before
    return messages.pop()


def test_a_newer_schema_names_both_revisions_and_the_remedy(path: Path) -> None:
    """Found, known, what to run."""
    migrate.upgrade(url_of(path))
    sql(path, "UPDATE alembic_version SET version_num = '0042'")
    assert refused(path) == (
        f"sqlite:///{path} was written by a newer recorder: its schema is 0042, and this version knows "
        f"{schema.HEAD}. Run: pip install --upgrade chat-recorder"
    )


def test_an_older_schema_names_the_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`old` from state, and the line to run, the password masked and the URL quoted for a shell."""
    migrate.upgrade(url_of(path))
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0099"))
    monkeypatch.setattr(schema, "HEAD", "0099")
    assert state(path) == "old"
    assert migrate.old_message("postgresql+asyncpg://me:secret@host/db?ssl=require") == (
        "postgresql://me:***@host/db?ssl=require has the tables of an older recorder; this version needs "
        "schema 0099. Run: recorder migrate --url 'postgresql://me:***@host/db?ssl=require'"
    )


def test_the_table_of_a_callback_of_ones_own_is_not_touched(path: Path) -> None:
    """`chat_history.db` may hold the `chathistory` that chat programs start with."""
    sql(path, "CREATE TABLE chathistory (id INTEGER PRIMARY KEY, role TEXT, content TEXT)")
    assert refused(path) == (
        f"sqlite:///{path} already has a table or view chathistory, not created by recorder, which needs this "
        "name. Nothing was changed; use another file, like sqlite:///recorder.db"
    )


def test_every_clashing_name_is_listed(path: Path) -> None:
    """Tables and views, in any case, which SQLite does not tell apart."""
    sql(path, "CREATE TABLE Messages (id)", "CREATE TABLE other (id)", "CREATE VIEW tokens AS SELECT 1")
    assert "already has tables or views messages, tokens, not created by recorder" in refused(path)


@pytest.mark.parametrize("revision", ["ab12cd34ef56", "0001"])
def test_another_tools_alembic_version_is_not_touched(path: Path, revision: str) -> None:
    """Even where it numbers its revisions as we do."""
    create = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"
    sql(path, create, f"INSERT INTO alembic_version VALUES ('{revision}')")
    assert refused(path) == (
        f"sqlite:///{path} is migrated by another tool: its alembic_version is {revision}, and recorder's "
        "tables do not exist. Nothing was changed; use another file, like sqlite:///recorder.db"
    )


def test_other_tables_may_live_beside_ours(path: Path) -> None:
    """Only names that clash are refused."""
    sql(path, "CREATE TABLE notes (content)", "INSERT INTO notes VALUES ('kept')")
    assert (state(path), migrate.upgrade(url_of(path)), state(path)) == ("empty", APPLIED, "current")
    assert sql(path, "SELECT content FROM notes") == [("kept",)]


def test_a_file_that_is_no_database_is_not_touched(path: Path) -> None:
    """SQLite's own words come through, for the store to say what to do."""
    path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        migrate.upgrade(url_of(path))
    assert path.read_bytes() == b"not a database at all " * 100


def test_an_installed_package_brings_its_own_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel has them as recorder/_migrations, without alembic.ini; a percent sign in the path is fine."""
    package = tmp_path / "100%" / "recorder"
    shutil.copytree(ROOT / "migrations", package / "_migrations")
    monkeypatch.setattr(migrate, "__file__", str(package / "storage" / "migrate.py"))
    assert migrate.scripts() == package / "_migrations"
    assert migrate.upgrade(url_of(tmp_path / "new.db")) == APPLIED


def test_a_package_without_scripts_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is named as one."""
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "recorder" / "storage" / "migrate.py"))
    with pytest.raises(SchemaError, match="pip install --force-reinstall chat-recorder"):
        migrate.scripts()


def test_work_done_on_a_connection_comes_back(path: Path) -> None:
    """`connected` is also for those who need one connection, beside a running event loop or not."""

    def count(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT 42").scalar_one())

    async def story() -> int:
        return migrate.connected(url_of(path), count)

    assert (migrate.connected(url_of(path), count), asyncio.run(story())) == (42, 42)
