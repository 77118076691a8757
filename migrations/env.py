"""Alembic's environment: for alembic's command line, and for a connection from recorder.storage.migrate."""

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

# Migrations use SQLAlchemy's own types, because the classes of recorder.storage.schema may change later.
PLAIN = {
    schema.Id: 'sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql")',
    schema.Time: 'sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")',
    schema.Json: 'sa.Text().with_variant(postgresql.JSON(), "postgresql")',
}


def url() -> str:
    """The URL from `-x url=...`, else from RECORDER_URL, else from alembic.ini."""
    given = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("RECORDER_URL")
    return given or config.get_main_option("sqlalchemy.url", "sqlite:///chat_history.db")


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | bool:
    """The source text of a column's type in a new migration; False for alembic's own text."""
    plain = PLAIN.get(type(item)) if kind == "type" else None
    if plain is None:
        return False
    autogen.imports.add("from sqlalchemy.dialects import postgresql")
    return plain


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Whether to compare a table: only recorder's, because the database may have others."""
    return kind != "table" or name in schema.metadata.tables


def include_object(found: Any, name: str | None, kind: str, reflected: bool, compared_to: object) -> bool:
    """Whether to compare an object: an index with an operator class or a method of Postgres only on Postgres."""
    options = found.dialect_kwargs if kind == "index" and not reflected else {}
    is_for_postgres = bool(options.get("postgresql_ops") or options.get("postgresql_using"))
    return not is_for_postgres or context.get_context().dialect.name == "postgresql"


def number(made_for: MigrationContext, revision: object, directives: list[MigrationScript]) -> None:
    """Name new revisions 0002, 0003, ..., unless one was given with --rev-id."""
    if getattr(config.cmd_opts, "rev_id", None):
        return
    head = ScriptDirectory.from_config(config).get_current_head()
    directives[0].rev_id = f"{int(head or 0) + 1:04}"


def applied(step: Any, **_: object) -> None:
    """Append an applied revision to the list of recorder.storage.migrate."""
    config.attributes.get("applied", []).append(step.up_revision_id)


def run(connection: Connection) -> None:
    """Run alembic's command in the open transaction of the connection."""
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        transactional_ddl=True,  # alembic's default except on SQLite
        include_name=include_name,
        include_object=include_object,
        render_item=render_item,
        process_revision_directives=number,
        on_version_apply=applied,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_alone(connection: Connection) -> None:
    """Run alembic's command in a transaction with the lock of recorder.storage.migrate."""
    with migrate.exclusively(connection):
        run(connection)


def print_sql() -> None:
    """For `alembic upgrade head --sql`: print the statements, so that somebody else can run them."""
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
