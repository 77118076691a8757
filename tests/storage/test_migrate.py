"""An upgrade to the newest schema is all or nothing, one upgrade at a time, and never changes other tables."""

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
    """The path of a file that does not exist yet."""
    return tmp_path / "history.db"


def url_of(path: Path) -> str:
    """The URL of this file."""
    return f"sqlite:///{path}"


def sql(path: Path, *statements: str) -> list[Any]:
    """Run statements as another program does, and return the rows of the last one."""
    with closing(sqlite3.connect(path)) as connection, connection:
        found = [connection.execute(statement).fetchall() for statement in statements]
    return found[-1]


def state(path: Path) -> str:
    """The state that recorder reports for the file."""
    return migrate.connected(url_of(path), migrate.state)


def alembic(*arguments: str, url: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Alembic's own command line in a folder with an alembic.ini."""
    environment = {**os.environ, "RECORDER_URL": url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "alembic", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that runs `code` and can import recorder."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_empty_file_gets_the_tables(path: Path) -> None:
    """Its state is `empty` before and `current` after."""
    assert state(path) == "empty"
    assert migrate.upgrade(url_of(path)) == APPLIED
    assert state(path) == "current"


def test_a_second_upgrade_does_nothing(path: Path) -> None:
    """No byte of the file changes."""
    migrate.upgrade(url_of(path))
    before = path.read_bytes()
    assert migrate.upgrade(url_of(path)) == []
    assert path.read_bytes() == before


def test_the_url_may_name_the_asynchronous_driver(path: Path) -> None:
    """Both URLs name the same file."""
    assert migrate.upgrade(f"sqlite+aiosqlite:///{path}") == APPLIED
    assert migrate.upgrade(url_of(path)) == []


def test_a_url_of_another_database_raises_a_config_error() -> None:
    """No driver is imported for it."""
    with pytest.raises(ConfigError, match=r"scheme 'mysql\S*' are not supported; use 'sqlite:///"):
        migrate.upgrade("mysql+pymysql://me:secret@host/db")


def test_a_new_file_has_the_chosen_page_size(path: Path) -> None:
    """The page size cannot be changed later."""
    migrate.upgrade(url_of(path))
    assert sql(path, "PRAGMA page_size") == [(schema.PAGE_SIZE,)]


def test_the_migrations_make_the_schema_of_the_code(path: Path, tmp_path: Path) -> None:
    """WITHOUT ROWID, partial indexes and views are compared too, which `alembic check` does not do."""
    migrate.upgrade(url_of(path))
    created = tmp_path / "created.db"
    with create_engine(url_of(created), poolclass=NullPool).begin() as connection:
        schema.metadata.create_all(connection)
        views.create(connection)
    assert schema_of(path) == schema_of(created)


def schema_of(path: Path) -> dict[str, Any]:
    """Columns of each table and whether it has a rowid, and the SQL of all else. A migration adds a column in another
    place of a table's SQL."""
    found = {}
    query = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%' ORDER BY name"
    for kind, name, text in sql(path, query):
        columns = (
            [column[1:] for column in sql(path, f"PRAGMA table_xinfo({name})")] if kind == "table" else []
        )
        found[name] = [*columns, text.endswith("WITHOUT ROWID")] if columns else text
    return found


def test_the_code_lists_the_revisions_of_the_scripts() -> None:
    """`REVISIONS` in schema.py lists them, the oldest first."""
    files = sorted((migrate.scripts() / "versions").glob("*.py"))
    named = [re.findall(r'^(?:down_)?revision = "?(\w+)"?$', file.read_text(), re.M) for file in files]
    older: list[str] = ["None", *schema.REVISIONS[:-1]]
    assert named == [list(pair) for pair in zip(schema.REVISIONS, older, strict=True)]
    assert schema.REVISIONS[-1] == schema.HEAD


def test_reading_the_state_does_not_import_alembic(path: Path) -> None:
    """Most databases are current when they are opened, and importing Alembic takes long."""
    migrate.upgrade(url_of(path))
    code = """
import sys
from recorder.storage import migrate
print(migrate.connected(sys.argv[1], migrate.state), "alembic" in sys.modules)
"""
    assert start(code, url_of(path)).communicate(timeout=30)[0] == "current False\n"


def test_alembic_finds_no_difference(path: Path) -> None:
    """`alembic check` runs in the root of the repository after recorder's own upgrade."""
    migrate.upgrade(url_of(path))
    checked = alembic("check", url=url_of(path))
    assert (checked.returncode, checked.stdout) == (0, "No new upgrade operations detected.\n"), (
        checked.stderr
    )


def test_alembic_upgrades_and_downgrades_beside_other_tables(path: Path) -> None:
    """Its own commands get the URL by `-x`, and a table of another program stays."""
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
    """A copy of alembic.ini and the migrations, for new migrations."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(
        ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_autogenerate_writes_an_empty_migration_when_nothing_differs(path: Path, copy: Path) -> None:
    """The migration has the next number."""
    migrate.upgrade(url_of(path))
    made = alembic("revision", "--autogenerate", "-m", "no change", url=url_of(path), folder=copy)
    assert made.returncode == 0, made.stderr
    written = (copy / f"migrations/versions/{NEXT}_no_change.py").read_text()
    assert re.findall(r"^    (?!#|\"\"\").*", written, re.M) == ["    pass", "    pass"]


def test_autogenerate_writes_plain_types(path: Path, copy: Path) -> None:
    """The migration for missing columns imports nothing of recorder, and upgrades the file."""
    migrate.upgrade(url_of(path))
    for column in ("metadata", "parent_run_id", "pruned_at"):
        sql(path, f"ALTER TABLE runs DROP COLUMN {column}")
    assert alembic("check", url=url_of(path)).returncode != 0
    made = alembic("revision", "--autogenerate", "-m", "columns", url=url_of(path), folder=copy)
    assert made.returncode == 0, made.stderr
    written = (copy / f"migrations/versions/{NEXT}_columns.py").read_text()
    assert "recorder" not in re.sub("#.*", "", written)
    assert alembic("upgrade", "head", url=url_of(path), folder=copy).returncode == 0
    assert alembic("check", url=url_of(path), folder=copy).returncode == 0


def test_an_error_at_any_statement_leaves_the_database_empty(tmp_path: Path) -> None:
    """The next upgrade succeeds."""
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
            applied = migrate.connected(url_of(path), migrate.upgrade_connection)
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
        migrate.connected(f"sqlite:///{folder}/killed-{number}.db", migrate.upgrade_connection)
        os._exit(0)
    signalled = os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(number - 1)
"""


def test_an_upgrade_succeeds_after_a_process_was_killed_at_any_statement(tmp_path: Path) -> None:
    """SIGKILL comes after each statement of the upgrade, in a new file each time."""
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


def test_eight_processes_can_upgrade_one_file_at_once(path: Path) -> None:
    """One of them applies the revisions, and the others find them applied."""
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


def test_threads_can_upgrade_different_files_at_once(tmp_path: Path) -> None:
    """Alembic has module globals, so upgrades of one process run one after the other."""
    urls = [url_of(tmp_path / f"{number}.db") for number in range(6)]
    with ThreadPoolExecutor(len(urls)) as pool:
        assert list(pool.map(migrate.upgrade, urls)) == [APPLIED] * len(urls)


@pytest.mark.parametrize("begin", [None, "BEGIN IMMEDIATE"])
def test_an_asynchronous_connection_can_be_upgraded(path: Path, begin: str | None) -> None:
    """`run_sync` calls the upgrade, whether or not the engine begins its transactions itself."""

    async def story() -> list[list[str]]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)
        if begin is not None:
            event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        async with engine.connect() as connection:
            return [await connection.run_sync(migrate.upgrade_connection) for _ in range(2)]

    assert asyncio.run(story()) == [APPLIED, []]
    assert state(path) == "current"


def test_the_second_of_two_upgrades_on_one_event_loop_raises(tmp_path: Path) -> None:
    """Without the error the two would wait for each other for ever."""

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
    """The message with which `state` and `upgrade` both refuse the file, which is not changed."""
    before = path.read_bytes()
    messages = set()
    entries: tuple[Callable[[Path], object], ...] = (state, lambda path: migrate.upgrade(url_of(path)))
    for call in entries:
        with pytest.raises(SchemaError) as caught:
            call(path)
        messages.add(str(caught.value))
    assert path.read_bytes() == before
    return messages.pop()


def test_the_error_for_a_newer_schema_names_both_revisions_and_what_to_run(path: Path) -> None:
    """It has the file's revision, the newest known one and the command."""
    migrate.upgrade(url_of(path))
    sql(path, "UPDATE alembic_version SET version_num = '0042'")
    assert refused(path) == (
        f"sqlite:///{path} was written by a newer recorder: its schema is 0042, and this version knows "
        f"{schema.HEAD}; install a newer version of chat-recorder (in a clone: git pull && pip install .)"
    )


def test_the_message_for_an_older_schema_names_the_command(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is masked and the URL is quoted for a shell."""
    migrate.upgrade(url_of(path))
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0099"))
    monkeypatch.setattr(schema, "HEAD", "0099")
    assert state(path) == "old"
    assert migrate.old_message("postgresql+asyncpg://me:secret@host/db?ssl=require") == (
        "postgresql://me:***@host/db?ssl=require has the tables of an older recorder; this version needs "
        "schema 0099. Run: recorder migrate --url 'postgresql://me:***@host/db?ssl=require'"
    )


def test_a_chathistory_table_of_another_program_is_not_changed(path: Path) -> None:
    """`chat_history.db` may hold the table `chathistory` that chat programs often begin with."""
    sql(path, "CREATE TABLE chathistory (id INTEGER PRIMARY KEY, role TEXT, content TEXT)")
    assert refused(path) == (
        f"sqlite:///{path} already has a table or view chathistory, not created by recorder, which needs this "
        "name. Nothing was changed; use another file, like sqlite:///recorder.db"
    )


def test_the_error_lists_every_name_that_is_in_use(path: Path) -> None:
    """Names of tables and views count, in any case, as in SQLite."""
    sql(path, "CREATE TABLE Messages (id)", "CREATE TABLE other (id)", "CREATE VIEW tokens AS SELECT 1")
    assert "already has tables or views messages, tokens, not created by recorder" in refused(path)


@pytest.mark.parametrize("revision", ["ab12cd34ef56", "0001"])
def test_an_alembic_version_of_another_tool_is_not_changed(path: Path, revision: str) -> None:
    """This holds also where the tool uses the same numbers for its revisions."""
    create = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"
    sql(path, create, f"INSERT INTO alembic_version VALUES ('{revision}')")
    assert refused(path) == (
        f"sqlite:///{path} is migrated by another tool: its alembic_version is {revision}, and recorder's "
        "tables do not exist. Nothing was changed; use another file, like sqlite:///recorder.db"
    )


def test_a_database_may_have_other_tables(path: Path) -> None:
    """Only a table with a name of recorder's is refused."""
    sql(path, "CREATE TABLE notes (content)", "INSERT INTO notes VALUES ('kept')")
    assert (state(path), migrate.upgrade(url_of(path)), state(path)) == ("empty", APPLIED, "current")
    assert sql(path, "SELECT content FROM notes") == [("kept",)]


def test_a_file_that_is_no_database_is_not_changed(path: Path) -> None:
    """SQLite's own error is raised, and the store adds what to do."""
    path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        migrate.upgrade(url_of(path))
    assert path.read_bytes() == b"not a database at all " * 100


def test_an_installed_package_has_its_own_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in recorder/_migrations without alembic.ini, and the path may have a percent sign."""
    package = tmp_path / "100%" / "recorder"
    shutil.copytree(ROOT / "migrations", package / "_migrations")
    monkeypatch.setattr(migrate, "__file__", str(package / "storage" / "migrate.py"))
    assert migrate.scripts() == package / "_migrations"
    assert migrate.upgrade(url_of(tmp_path / "new.db")) == APPLIED


def test_a_package_without_scripts_raises_how_to_install_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installation is broken."""
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "recorder" / "storage" / "migrate.py"))
    with pytest.raises(SchemaError, match="install chat-recorder again"):
        migrate.scripts()


def test_connected_returns_the_result_of_its_function(path: Path) -> None:
    """It works beside a running event loop and without one."""

    def count(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT 42").scalar_one())

    async def story() -> int:
        return migrate.connected(url_of(path), count)

    assert (migrate.connected(url_of(path), count), asyncio.run(story())) == (42, 42)
