"""Each parameter of a Postgres URL is kept, left out, or refused with what to write."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError, StoreError
from recorder.storage.dialects import Postgres, open_error, parse_url, url_parameters
from recorder.storage.dialects.url_parameters import connect_arguments
from tests.oracle import assert_whole, record


def query_of(parameters: str) -> dict[str, Any]:
    """The query that asyncpg gets for these parameters."""
    found = dict(make_url(connect_arguments(parse_url(f"postgresql://me@host/db?{parameters}")).dsn).query)
    assert found.pop("application_name") == "recorder"
    return found


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ssl=require", {"sslmode": "require"}),
        ("ssl=prefer", {"sslmode": "prefer"}),
        ("ssl=true", {"sslmode": "require"}),
        ("ssl=0", {"sslmode": "disable"}),
        ("ssl=require&sslmode=require", {"sslmode": "require"}),
        ("sslmode=VERIFY_FULL", {"sslmode": "verify-full"}),
        ("schema=chats", {"search_path": "chats"}),
        ("currentSchema=chats", {"search_path": "chats"}),
        ("hostaddr=127.0.0.1", {"host": "127.0.0.1"}),
        ("host=name&hostaddr=127.0.0.1", {"host": "name"}),
        ("hostaddr=127.0.0.1&host=name", {"host": "name"}),
        ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("options=-c%20search_path%3Dchats", {"options": "-c search_path=chats"}),
        ("statement_timeout=5s&work_mem=64MB", {"statement_timeout": "5s", "work_mem": "64MB"}),
        ("client_encoding=auto", {}),
        ("client_encoding=UTF8", {}),
        ("pgbouncer=true&connection_limit=1&pool_timeout=0&statement_cache_size=0", {}),
        ("prepared_statement_cache_size=0&prepare_threshold=0&async_fallback=true", {}),
        ("load_balance_hosts=random&sslsni=1&sslcompression=0&min_protocol_version=3.0", {}),
        ("keepalives=1&keepalives_idle=30&tcp_user_timeout=1000", {}),
        ("channel_binding=prefer&gssencmode=disable&sslcertmode=allow", {}),
    ],
)
def test_parameters_of_other_libraries_are_translated_or_left_out(given: str, kept: dict[str, str]) -> None:
    """Parameters of libpq, asyncpg, SQLAlchemy, JDBC, Prisma and poolers mean the same as there."""
    assert query_of(given) == kept


def test_timeouts_of_connection_and_statement() -> None:
    """Zero in the URL means recorder's default limit."""
    found = connect_arguments(parse_url("postgresql://host/db?connect_timeout=2&command_timeout=60.5"))
    assert (found.timeout, found.command_timeout) == (2.0, 60.5)
    found = connect_arguments(parse_url("postgresql://host/db?timeout=3&command_timeout=0"))
    assert (found.timeout, found.command_timeout) == (3.0, url_parameters.COMMAND_TIMEOUT)
    assert connect_arguments(parse_url("postgresql://host/db")).timeout == url_parameters.CONNECT_TIMEOUT


def test_the_name_of_the_connection() -> None:
    """`application_name` comes first, then `fallback_application_name`, then `recorder`."""
    for given, name in (
        ("application_name=shop&fallback_application_name=x", "shop"),
        ("fallback_application_name=x&ApplicationName=shop", "shop"),
        ("fallback_application_name=x", "x"),
        ("", "recorder"),
    ):
        found = make_url(connect_arguments(parse_url(f"postgresql://host/db?{given}")).dsn)
        assert found.query["application_name"] == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ssl=maybe", r"ssl='maybe' .* write one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslmode=no-verify", r"sslmode='no-verify' .* write one of disable"),
        ("ssl=require&sslmode=disable", r"two different values of 'sslmode'; leave one of them out"),
        ("target_session_attrs=master", r"target_session_attrs='master' .* write one of any, read-write"),
        ("sslMode=require", r"'sslMode' .* is spelled 'sslmode'"),
        ("connect-timeout=3", r"'connect-timeout' .* is spelled 'connect_timeout'"),
        (
            "connect_timeout=soon",
            r"connect_timeout='soon' .* not a number of seconds; write connect_timeout=10",
        ),
        ("connect_timeout=-1", "not a number of seconds"),
        ("command_timeout=inf", "not a number of seconds"),
        ("client_encoding=latin1", r"client_encoding='latin1' .* leave it out"),
        ("sslmode=verify-full&sslrootcert=/not/there.crt", r"sslrootcert='/not/there.crt' .* names no file"),
        ("sslrootcert=system&sslmode=require", "requires sslmode=verify-full"),
    ],
)
def test_a_wrong_value_raises_what_to_write(given: str, message: str) -> None:
    """The constructor raises before it connects."""
    with pytest.raises(ConfigError, match=message):
        ChatHistoryCallback(f"postgresql://me:secret@host.invalid/db?{given}")


def test_sslrootcert_system_uses_the_certificates_of_the_operating_system() -> None:
    """The name of the server is checked."""
    found = connect_arguments(parse_url("postgresql://host/db?sslrootcert=system"))
    assert found.ssl is not None
    assert (found.ssl.verify_mode, found.ssl.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert "sslrootcert" not in found.dsn


def test_certificate_files_are_not_read_when_tls_is_off() -> None:
    """One URL can serve all machines, although one of them has no TLS."""
    assert (
        connect_arguments(parse_url("postgresql://host/db?sslmode=disable&sslrootcert=/not/there")).ssl
        is None
    )


def test_parameters_that_asyncpg_cannot_check_are_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user asked for them for safety, so the log says that they have no effect."""
    monkeypatch.setattr(url_parameters, "_warned", set())
    with caplog.at_level(logging.WARNING, "recorder"):
        for _ in range(2):
            assert query_of("channel_binding=require&require_auth=scram-sha-256&sslcertmode=require") == {}
    assert [record.args for record in caplog.records] == [
        ("channel_binding",),
        ("require_auth",),
        ("sslcertmode",),
    ]


@pytest.mark.parametrize(
    "given",
    [
        "ssl=prefer", "ssl=disable", "ssl=allow", "client_encoding=auto", "pgbouncer=true", "schema=public",
        "require_auth=none,scram-sha-256", "command_timeout=60", "target_session_attrs=read-write",
        "statement_timeout=60000", "application_name=shop",
    ],
)  # fmt: skip
def test_a_server_accepts_the_translated_parameters(postgres_url: str, given: str) -> None:
    """A history connects and stores a run."""
    with ChatHistoryCallback(f"{postgres_url}&{given}", strict=True) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])


@pytest.mark.parametrize("away", ["127.0.0.1:9", "/tmp/no-server-is-here"], ids=["a port", "a socket"])
def test_the_next_host_is_used_when_the_first_is_away(postgres_url: str, away: str) -> None:
    """The URL names two hosts."""
    socket = make_url(postgres_url).query["host"]
    url = make_url(postgres_url).set(query={"host": (away, str(socket))})
    with ChatHistoryCallback(url.render_as_string(hide_password=False), strict=True) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("sslmod=require", "'sslmod' is neither a parameter of libpq nor a setting .* write 'sslmode'"),
        ("whatever=1", r"'whatever' is neither a parameter of libpq nor .* leave it out of the URL$"),
        ("statement_timeout=soon", "write another value for it in the URL"),
        ("shared_buffers=1GB", "leave it out of the URL"),
    ],
)
def test_a_parameter_that_the_server_does_not_know_raises(postgres_url: str, given: str, remedy: str) -> None:
    """The constructor raises what to write, with `strict` and without, and does not try again."""
    with pytest.raises(StoreError, match=remedy):
        ChatHistoryCallback(f"{postgres_url}&{given}")


def test_a_parameter_that_a_pooler_refuses_raises_where_to_set_it() -> None:
    """pgbouncer refuses parameters that it does not know."""
    refusal = asyncpg.ProtocolViolationError("unsupported startup parameter: search_path")
    found = open_error(Postgres(parse_url("postgresql://host/db?search_path=chats")), refusal)
    assert "remove search_path from the URL, and set it for the user (ALTER ROLE" in str(found)


def test_an_existing_certificate_file_is_accepted(tmp_path: Path) -> None:
    """asyncpg reads it when it connects."""
    (tmp_path / "root.crt").write_text("")
    assert query_of(f"sslmode=verify-ca&sslrootcert={tmp_path / 'root.crt'}")["sslmode"] == "verify-ca"
