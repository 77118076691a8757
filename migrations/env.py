"""What alembic runs: for its own command line, and for the connection that recorder.storage.migrate hands over."""

from __future__ import annotations

import os
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url

from recorder.storage import migrate, schema

config = context.config

# A migration outlives the classes of recorder.storage.schema, so it is written in plain types.
PLAIN = {
    schema.Id: 'sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")',
    schema.Time: 'sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")',
    schema.Json: 'sa.Text().with_variant(postgresql.JSON(), "postgresql")',
}


def url() -> str:
    """From `-x url=...`, else RECORDER_URL, else alembic.ini."""
    given = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("RECORDER_URL")
    return given or config.get_main_option("sqlalchemy.url", "sqlite:///chat_history.db")


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | bool:
    """How a column's type is written in a new migration; False leaves it to alembic."""
    plain = PLAIN.get(type(item)) if kind == "type" else None
    if plain is None:
        return False
    autogen.imports.add("from sqlalchemy.dialects import postgresql")
    return plain


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Only our own tables are compared: others may live beside them."""
    return kind != "table" or name in schema.metadata.tables


def include_object(found: Any, name: str | None, kind: str, reflected: bool, compared_to: object) -> bool:
    """An index with a Postgres operator class is for Postgres only."""
    is_for_postgres = kind == "index" and not reflected and bool(found.dialect_kwargs.get("postgresql_ops"))
    return not is_for_postgres or context.get_context().dialect.name == "postgresql"


def number(made_for: MigrationContext, revision: object, directives: list[MigrationScript]) -> None:
    """Name new revisions 0002, 0003, ..., unless one was given with --rev-id."""
    if getattr(config.cmd_opts, "rev_id", None):
        return
    head = ScriptDirectory.from_config(config).get_current_head()
    directives[0].rev_id = f"{int(head or 0) + 1:04}"


def applied(step: Any, **_: object) -> None:
    """Tell recorder.storage.migrate which revisions were applied."""
    config.attributes.get("applied", []).append(step.up_revision_id)


def run(connection: Connection) -> None:
    """Run what alembic was asked for, in the transaction that is open on the connection."""
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        transactional_ddl=True,  # which is alembic's default everywhere but on SQLite
        include_name=include_name,
        include_object=include_object,
        render_item=render_item,
        process_revision_directives=number,
        on_version_apply=applied,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_alone(connection: Connection) -> None:
    """The same, with the transaction and the lock of recorder.storage.migrate."""
    with migrate.exclusively(connection):
        run(connection)


def print_sql() -> None:
    """`alembic upgrade head --sql`: the statements, for someone else to run."""
    context.configure(
        dialect_name=make_url(url()).get_backend_name(), transactional_ddl=True, literal_binds=True
    )
    with context.begin_transaction():
        context.run_migrations()


if "connection" in config.attributes:
    run(config.attributes["connection"])
else:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    if context.is_offline_mode():
        print_sql()
    else:
        migrate.connected(url(), run_alone)
