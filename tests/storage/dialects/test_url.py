"""The URL of a database may be written in many ways, and its passwords are never shown."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from sqlalchemy import make_url

from recorder.errors import ConfigError
from recorder.storage.dialects import file_of, masked, parse_url
from recorder.storage.dialects.url_parameters import connect_arguments

SECRET = "Hunter2-canary"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://me:{}@one:5432,two:5433/db", "one:5432,two:5433"),
        ("postgres://me:{}@one,two/db", "one,two"),
        ("postgresql+psycopg://me:{}@one:5432,two/db?sslmode=require", "one:5432,two"),
        ("postgresql://me:{}@[::1]:5432,[::2]/db", "[::1]:5432,[::2]"),
        ("postgresql://me:{}@%2Frun%2Fpostgresql,two/db", "/run/postgresql,two"),
        ("postgresql+asyncpg://me:{}@/db?host=one:5432&host=two:5433", "one:5432,two:5433"),
        ("postgresql:///db?user=me&password={}&host=one,two&port=5432,5433", "one,two"),
    ],
)
def test_a_url_may_have_several_hosts(url: str, hosts: str) -> None:
    """libpq has them before the path, SQLAlchemy in the query."""
    found = parse_url(url.format(SECRET))
    assert found.query["host"] == hosts
    assert (found.username, found.password, found.database) == ("me", SECRET, "db")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://me@one:5433/db", "one", 5433),
        ("postgresql+psycopg2://me@[::1]:5433/db", "::1", 5433),
        ("  postgres://me@one:5433/db\n", "one", 5433),
    ],
)
def test_a_url_may_have_one_host(url: str, host: str, port: int) -> None:
    """White space around a copied URL is ignored."""
    found = parse_url(url)
    assert (found.drivername, found.host, found.port) == ("postgresql", host, port)


def test_user_password_and_database_may_be_in_the_query() -> None:
    """What stands before the `?` counts first."""
    found = parse_url("postgresql://host?user=me&password=a&dbname=chats")
    assert (found.username, found.password, found.database, dict(found.query)) == ("me", "a", "chats", {})
    found = parse_url("postgresql://me:b@host/chats?user=you&password=a&dbname=others")
    assert (found.username, found.password, found.database, dict(found.query)) == ("me", "b", "chats", {})


def test_a_password_without_a_user_reaches_the_driver() -> None:
    """The password is in the query, and the user may come from the environment."""
    found = parse_url(f"postgresql://host/db?password={SECRET}")
    assert connect_arguments(found).password == SECRET
    assert SECRET not in masked(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{}@host/db",
        "postgresql+asyncpg://me:{}@host:5432/db?sslmode=require",
        "postgresql://me:{}@one:5432,two:5433/db",
        "postgresql://host/db?password={}",
        "postgresql://host/db?user=me&password={}&application_name=x",
        "postgresql:///db?host=one&host=two&password={}&password={}",
        "postgresql://me@host/db?sslpassword={}&sslkey=x",
        "sqlite:///chat.db?password={}",
        "sqlite:///chat.db?api_key={}&mode=ro",
        "mysql://me:{}@host/db?token={}",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    """The password may be anywhere in the URL, with any driver, and the rest is shown."""
    shown = masked(url.format(SECRET, SECRET))
    assert SECRET not in shown
    assert "%2A" not in shown
    if SECRET not in url:
        assert shown.startswith(("postgresql://", "sqlite:///chat.db", "mysql://"))


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgres:me:{}@host/db", "not a URL that can be parsed"),
        ("postgresql//me:{}@host/db", "not a URL that can be parsed"),
        ("jdbc:postgresql://host/db?user=me&password={}", "not a URL that can be parsed"),
        ("host=localhost user=me password={}", "a libpq connection string"),
        ("me:{}@host", "not a URL that can be parsed"),
        ("{}?password=x", "not a URL that can be parsed"),
        ("me:{}@host/my.db", "not a URL that can be parsed"),
        ("//me:{}@host/my.db", "not a URL that can be parsed"),
        ("postgresql://me:{}@host:port/db", "port in the database's URL is not a number"),
        ("postgresql://me:{}:5432:x/db", "port in the database's URL is not a number"),
        ("postgresql://me:a@{}@host/db", "password in the database's URL has an @; write %40"),
        ("postgresql://me:a@{}@one:1,two:2/db", "password in the database's URL has an @"),
        ("oracle://me:{}@host/db", "scheme 'oracle' are not supported"),
    ],
)
def test_a_url_that_cannot_be_parsed_is_not_shown(url: str, remedy: str) -> None:
    """Any part of it may be the password, so neither the message nor a traceback has it."""
    with pytest.raises(ConfigError, match=remedy) as refused:
        parse_url(url.format(SECRET))
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert SECRET not in masked(url.format(SECRET))


def test_a_masked_url_can_be_parsed() -> None:
    """A user can copy it and fill in the password."""
    shown = masked(f"postgresql+asyncpg://me:{SECRET}@one:1,two:2/my_db?sslmode=require")
    assert make_url(shown).set(password="") == make_url(
        "postgresql://me:@/my_db?host=one:1,two:2&sslmode=require"
    )


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("chats.db", "chats.db"),
        ("./chats.db", "./chats.db"),
        ("data/chats.sqlite3", "data/chats.sqlite3"),
        (" my chats.sqlite\n", "my chats.sqlite"),
        ("/srv/100% me@home/a?b", "/srv/100% me@home/a?b"),
        ("../chats", "../chats"),
        ("~/chats.db", os.path.expanduser("~/chats.db")),
        (Path("data/chats.db"), "data/chats.db"),
    ],
)
def test_the_path_of_a_file_is_a_url(path: str | Path, file: str) -> None:
    """It needs neither a scheme nor an existing file."""
    found = parse_url(path)
    assert (found.drivername, found.database, dict(found.query)) == ("sqlite", file, {})
    assert str(file_of(found)) == str(Path(file))


def test_the_name_of_an_existing_file_is_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its name may have any form."""
    monkeypatch.chdir(tmp_path)
    for name in ("chats", "a:b", "me@home"):
        with pytest.raises(ConfigError):
            parse_url(name)
        (tmp_path / name).touch()
        assert parse_url(name).database == name


@pytest.mark.parametrize(
    ("typo", "remedy"),
    [
        ("postgres//host/db", "no file has this name"),
        ("postgres//host/my.db", "no file has this name"),
        ("postgresql:/host/my.db", "not a URL that can be parsed"),
        ("postgresql:host/my.db", "not a URL that can be parsed"),
        ("sqlite//my.db", "no file has this name"),
        ("sqlite:my.db", "not a URL that can be parsed"),
        ("sqlite:/my.db", "not a URL that can be parsed"),
        ("localhost/db", "write 'sqlite:///localhost/db' for a new SQLite file, or 'postgresql://"),
        ("chats", "write 'sqlite:///chats' for a new SQLite file, or 'postgresql://"),
        ("", "write 'sqlite:///chat_history.db'"),
        (":memory:", "in-memory"),
    ],
)
def test_a_url_with_a_typo_is_not_a_file(typo: str, remedy: str) -> None:
    """The error shows how the URL of a file and of a server are written."""
    with pytest.raises(ConfigError, match=remedy):
        parse_url(typo)
