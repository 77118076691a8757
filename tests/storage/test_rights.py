"""The rights that recorder needs on Postgres, and the schema that a URL names: both are told at construction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import StoreError
from recorder.storage import schema
from recorder.storage.batch import Batch
from recorder.storage.rights import WRITING, MissingRights, names_in_path
from recorder.storage.store import SqlStore
from tests import postgres
from tests.oracle import assert_whole, record
from tests.stores import PRODUCER, using


@pytest.fixture
def guest_url(postgres_url: str) -> Iterator[str]:
    """The URL of a role that has exactly the rights with which recorder stores."""
    name = f"guest_{make_url(postgres_url).database}"
    postgres.fetch(postgres_url, f"CREATE ROLE {name} LOGIN")
    postgres.fetch(postgres_url, f"GRANT SELECT ON alembic_version TO {name}")
    for table, rights in WRITING.items():
        postgres.fetch(postgres_url, f"GRANT {', '.join(rights)} ON {table} TO {name}")
    yield make_url(postgres_url).set(username=name).render_as_string(hide_password=False)
    postgres.fetch(postgres_url, f"DROP OWNED BY {name}")
    postgres.fetch(postgres_url, f"DROP ROLE {name}")


def role_of(url: str) -> str:
    """The name of the role in a URL."""
    return str(make_url(url).username)


def construct(url: str) -> None:
    """Make a history as a user does, and close it."""
    ChatHistoryCallback(url).close().wait(10)


def test_a_role_with_exactly_these_rights_can_store_a_run(postgres_url: str, guest_url: str) -> None:
    """No further right is needed, also not for a trial and for a run that is repeated."""
    with ChatHistoryCallback(guest_url) as history:
        run_id = record(history, reply="a")
        record(history, reply="b", run_id=run_id)
    assert_whole(postgres_url, run_id, ["a"])

    using(guest_url, lambda store: store.append(Batch(PRODUCER, [], trial=True)))


@pytest.mark.parametrize(
    ("table", "right"), [(table, right) for table in WRITING for right in WRITING[table]]
)
def test_each_right_that_lacks_is_named_with_the_grant(
    postgres_url: str, guest_url: str, table: str, right: str
) -> None:
    """The constructor raises; before, only the first batch failed."""
    role = role_of(guest_url)
    postgres.fetch(postgres_url, f"REVOKE {right} ON {table} FROM {role}")
    with pytest.raises(StoreError) as refused:
        construct(guest_url)
    assert f"The role {role} lacks rights in postgresql://" in str(refused.value)
    assert f": {right} on public.{table}. As the owner" in str(refused.value)
    assert str(refused.value).endswith(f"run: GRANT {right} ON public.{table} TO {role}")


def test_the_grants_in_the_message_mend_it(postgres_url: str, guest_url: str) -> None:
    """Several rights are several statements, which can be run as they are."""
    role = role_of(guest_url)
    postgres.fetch(postgres_url, f"REVOKE INSERT ON segments, gaps, runs FROM {role}")
    postgres.fetch(postgres_url, f"REVOKE UPDATE ON runs FROM {role}")
    with pytest.raises(StoreError) as refused:
        construct(guest_url)
    for statement in str(refused.value).partition("run: ")[2].split("; "):
        postgres.fetch(postgres_url, statement)
    construct(guest_url)


def test_a_right_on_columns_is_sufficient(postgres_url: str, guest_url: str) -> None:
    """Roles may have their rights column by column."""
    role = role_of(guest_url)
    columns = ", ".join(schema.gaps.c.keys())
    postgres.fetch(postgres_url, f"REVOKE INSERT ON gaps FROM {role}")
    postgres.fetch(postgres_url, f"GRANT INSERT ({columns}) ON gaps TO {role}")
    construct(guest_url)


def test_the_table_of_the_revision_must_be_readable(postgres_url: str, guest_url: str) -> None:
    """Without it no command can know the schema, so readers say it as well."""
    role = role_of(guest_url)
    postgres.fetch(postgres_url, f"REVOKE SELECT ON alembic_version FROM {role}")
    with pytest.raises(StoreError, match=rf"run: GRANT SELECT ON public.alembic_version TO {role}$"):
        construct(guest_url)
    with pytest.raises(MissingRights, match=r"SELECT on public.alembic_version"):
        asyncio.run(SqlStore(guest_url, read_only=True).open())


def test_on_an_event_loop_opened_raises_it(postgres_url: str, guest_url: str) -> None:
    """The constructor does not wait there; nothing is recorded, and the recorder says why."""
    postgres.fetch(postgres_url, f"REVOKE INSERT ON segments FROM {role_of(guest_url)}")

    async def opened() -> None:
        history = ChatHistoryCallback(guest_url)
        with pytest.raises(StoreError, match=r"GRANT INSERT ON public.segments TO"):
            await history.opened()
        assert "INSERT on public.segments" in str(history.stats().last_error)
        assert not history.stats().healthy

    asyncio.run(opened())


def test_a_role_that_cannot_create_tables_is_told_the_grant(guest_url: str) -> None:
    """An empty database needs the right to create tables, and one that has tables does not."""
    url = postgres.new_database(empty=True)
    guest = make_url(url).set(username=role_of(guest_url)).render_as_string(hide_password=False)
    try:
        postgres.fetch(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        with pytest.raises(StoreError, match="cannot create tables in the schema public") as refused:
            construct(guest)
        assert str(refused.value).endswith(
            f"run: GRANT CREATE, USAGE ON SCHEMA public TO {role_of(guest_url)}"
        )
        postgres.fetch(url, str(refused.value).partition("run: ")[2])
        construct(guest)
    finally:
        postgres.drop(url)


@pytest.mark.parametrize(
    ("parameter", "name"),
    [
        ("search_path=chats", "chats"),
        ("schema=Chats,public", "chats"),
        ('currentSchema="My+Chats"', '"My Chats"'),
    ],
)
def test_a_schema_in_the_url_that_does_not_exist_is_named(
    postgres_url: str, parameter: str, name: str
) -> None:
    """Otherwise the tables would be made in the next schema of the path, or in none."""
    with pytest.raises(StoreError, match=f"The schema {name}, .* does not exist") as refused:
        construct(f"{postgres_url}&{parameter}")
    statement = str(refused.value).partition("run: ")[2].partition(", or")[0]
    assert statement.startswith(f"CREATE SCHEMA {name} AUTHORIZATION ")
    postgres.fetch(postgres_url, statement)
    construct(f"{postgres_url}&{parameter}")


def test_a_schema_that_the_role_may_not_use_is_named(postgres_url: str, guest_url: str) -> None:
    """It exists, so the error has the right in place of its creation."""
    postgres.fetch(postgres_url, "CREATE SCHEMA chats")
    with pytest.raises(
        StoreError, match=r"cannot use the schema chats .*; run: GRANT USAGE ON SCHEMA chats TO"
    ):
        construct(f"{guest_url}&search_path=chats")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ('"$user", public', ["$user", "public"]),
        ('Chats,"My ""own"" chats"', ["chats", 'My "own" chats']),
        ("", []),
    ],
)
def test_a_search_path_is_split_as_the_server_splits_it(path: str, expected: list[str]) -> None:
    """Names without quotes are lower case; in quotes, commas and doubled quotes belong to the name."""
    assert list(names_in_path(path)) == expected
