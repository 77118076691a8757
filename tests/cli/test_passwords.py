"""Passwords in a database's URL: every command connects with them on a real server, and none of them prints one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import make_url

from recorder import ChatHistoryCallback
from recorder.errors import StoreError
from recorder.replay import Replay
from recorder.storage import migrate
from tests import postgres
from tests.cli.test_commands import cli
from tests.oracle import record

#: Letters that have a meaning in a URL, and one that is none of ASCII.
ODD = "@:/%#? ü"
#: The beginning is looked for; in a URL it is written as it is.
RIGHT, WRONG = f"s3cret{ODD}", f"gu3ssed{ODD}"
COMMANDS = [
    ["ls"], ["ls", "--json"], ["stats"], ["stats", "--json"], ["migrate"], ["show", "mine"], ["export"],
    ["replay", "--instant"], ["sql", "SELECT count(*) FROM runs"], ["chat", "--provider", "loopback"],
]  # fmt: skip


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """A user whose name and password have odd letters, and whom the server asks for the password."""
    name = f"{make_url(postgres_url).database}{ODD}"
    postgres.fetch(postgres_url, f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{RIGHT}' SUPERUSER")
    with postgres.password_required(f'"{name}"'):
        yield name
    postgres.fetch(postgres_url, f'REASSIGN OWNED BY "{name}" TO CURRENT_USER')
    postgres.fetch(postgres_url, f'DROP ROLE "{name}"')


def in_the_query(url: str, role: str, password: str) -> str:
    """The URL with the user and the password behind the question mark."""
    plain = make_url(url)._replace(username=None, password=None).render_as_string(hide_password=False)
    between = "&" if "?" in plain else "?"
    return f"{plain}{between}user={quote(role, safe='')}&password={quote(password, safe='')}"


def before_the_host(url: str, role: str, password: str) -> str:
    """The URL with both in their place."""
    return make_url(url).set(username=role, password=password).render_as_string(hide_password=False)


@pytest.mark.parametrize("write", [in_the_query, before_the_host])
def test_odd_letters_open_a_real_database(postgres_url: str, role: str, write: object) -> None:
    """For the recorder, for a reader and a follower, and for the upgrade."""
    url = write(postgres_url, role, RIGHT)  # type: ignore[operator]
    with ChatHistoryCallback(url, strict=True) as history:
        record(history, reply="a")
    with Replay(url) as replay:
        assert next(replay.stream(speed=None, follow=True)).text == "a"
    assert migrate.upgrade(url) == []
    with pytest.raises(StoreError, match="password authentication failed"):
        ChatHistoryCallback(write(postgres_url, role, WRONG))  # type: ignore[operator]


def test_no_command_prints_a_password(postgres_url: str, role: str, tmp_path: Path) -> None:
    """Neither the right one nor a wrong one; nor does an export hold it."""
    right, wrong = (in_the_query(postgres_url, role, password) for password in (RIGHT, WRONG))
    with ChatHistoryCallback(right, conversation_id="mine", strict=True) as history:
        record(history, reply="a")
    for command in COMMANDS:
        done = cli(*command, url=right)
        assert (done.exit_code, "s3cret" in done.output) == (0, False), (command, done.output)
        done = cli(*command, "--url", wrong)
        assert (done.exit_code, "gu3ssed" in done.output) == (1, False), (command, done.output)
        assert "password authentication failed" in done.stderr
    assert cli("export", "--output", str(tmp_path / "a.jsonl"), url=right).exit_code == 0
    header, *_ = (tmp_path / "a.jsonl").read_text().splitlines()
    assert ('"source"' in header, "s3cret" in header, "***" in header) == (True, False, True)


def test_the_log_holds_no_password(postgres_url: str, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also where it tells that the database is gone."""
    url = in_the_query(postgres_url, role, RIGHT)
    with caplog.at_level(logging.DEBUG):
        history = ChatHistoryCallback(url)
        record(history, reply="a")
        history.flush().wait(20)
        postgres.fetch(postgres_url, f"ALTER ROLE \"{role}\" PASSWORD 'another'")
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
        postgres.fetch(postgres_url, query, role)
        record(history, reply="b")
        history.close(1).wait(10)
    ours = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("recorder"))
    assert ours
    assert "s3cret" not in ours + caplog.text
