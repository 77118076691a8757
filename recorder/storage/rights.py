"""The rights on Postgres without which nothing can be stored, and the schemas of `search_path`.

They are checked when a database is opened. Otherwise the first batch would fail, long after the application started.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from recorder.errors import StoreError
from recorder.storage import schema, views
from recorder.storage.dialects import masked
from recorder.storage.migrate import VERSION_TABLE, State, state

#: What the writer does with each table. A table without SELECT is only inserted into.
WRITING: Mapping[str, tuple[str, ...]] = {
    "producers": ("SELECT", "INSERT", "UPDATE"),
    "runs": ("SELECT", "INSERT", "UPDATE"),
    "messages": ("SELECT", "INSERT"),
    "segments": ("SELECT", "INSERT"),
    "conversations": ("SELECT", "INSERT", "UPDATE"),
    "annotations": ("INSERT",),
    "context_messages": ("INSERT",),
    "frames": ("INSERT",),
    "gaps": ("INSERT",),
}
#: What reading needs: every table and view.
READING: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    (*schema.metadata.tables, *views.definitions("postgresql")), ("SELECT",)
)
_OPENING = {VERSION_TABLE: ("SELECT",)}

_ROLE = """
SELECT quote_ident(current_user), quote_ident(current_schema()), current_setting('search_path'),
    has_schema_privilege(current_schema(), 'CREATE')"""
# `has_any_column_privilege` is true as well for a right on the whole table.
_LACKING = """
SELECT format('%I.%I', n.nspname, c.relname), w.privilege
FROM unnest(CAST($1 AS text[]), CAST($2 AS text[])) AS w (name, privilege)
JOIN pg_class AS c ON c.oid = to_regclass(quote_ident(w.name)) JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT has_any_column_privilege(c.oid, w.privilege)"""
_UNUSABLE = """
SELECT quote_ident(name), to_regnamespace(quote_ident(name)) IS NOT NULL
FROM CAST($1 AS text) AS name
WHERE NOT coalesce(has_schema_privilege(to_regnamespace(quote_ident(name)), 'USAGE'), false)"""
#: One name in `search_path`, quoted or not.
_NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"\s]+))\s*(?:,|$)')
#: The parameters of a URL that may set `search_path`.
_PATH_PARAMETERS = frozenset(("search_path", "schema", "currentSchema", "options"))


class MissingRights(StoreError):
    """The role of the connection lacks a right, or the schema in `search_path` does not exist."""


class ConnectedRole(NamedTuple):
    """The role and the schema of a connection, quoted where SQL needs it."""

    name: str
    #: The schema of new tables; None if no schema of `search_path` can be used.
    schema: str | None
    search_path: str
    can_create: bool


def opened_state(connection: Connection, url: str, *, parameters: Iterable[str], writes: bool) -> State:
    """As `migrate.state`. On Postgres it raises `MissingRights` if the role cannot read the state or, with `writes`,
    cannot store runs. `parameters` are the names of the URL's parameters."""
    if connection.dialect.name != "postgresql":
        return state(connection)
    own = connected_role(connection)
    _refuse_missing_schema(connection, url, own, is_named=not _PATH_PARAMETERS.isdisjoint(parameters))
    _refuse_lacking(connection, url, own, _OPENING)
    found = state(connection)
    if writes and found == "current":
        _refuse_lacking(connection, url, own, WRITING)
    if writes and found == "empty" and not own.can_create:
        raise MissingRights(
            f"The role {own.name} cannot create tables in the schema {own.schema} of {masked(url)}; "
            f"run: GRANT CREATE, USAGE ON SCHEMA {own.schema} TO {own.name}"
        )
    return found


def connected_role(connection: Connection) -> ConnectedRole:
    """The role and the schema of a connection to Postgres."""
    [row] = connection.exec_driver_sql(_ROLE).all()
    return ConnectedRole(row[0], row[1], row[2], bool(row[3]))


def lacking(connection: Connection, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Rights -> the tables and views on which the role of a connection to Postgres lacks them: "INSERT, UPDATE" ->
    ["public.runs"]. Names have their schema. Of tables that do not exist nothing is lacking."""
    pairs = [(name, right) for name, rights in wanted.items() for right in rights]
    names, rights = zip(*pairs, strict=True)
    lacks: defaultdict[str, list[str]] = defaultdict(list)
    for table, right in connection.exec_driver_sql(_LACKING, (list(names), list(rights))):
        lacks[table].append(right)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for table, its_rights in sorted(lacks.items()):
        found[", ".join(its_rights)].append(table)
    return dict(found)


def in_words(found: Mapping[str, Sequence[str]]) -> str:
    """What is lacking, for a sentence: "INSERT on public.gaps, public.segments"."""
    return "; ".join(f"{rights} on {', '.join(tables)}" for rights, tables in sorted(found.items()))


def grants(found: Mapping[str, Sequence[str]], role: str) -> str:
    """The statements that grant what is lacking."""
    return "; ".join(
        f"GRANT {rights} ON {', '.join(tables)} TO {role}" for rights, tables in sorted(found.items())
    )


def _refuse_lacking(
    connection: Connection, url: str, own: ConnectedRole, wanted: Mapping[str, tuple[str, ...]]
) -> None:
    if found := lacking(connection, wanted):
        raise MissingRights(
            f"The role {own.name} lacks rights in {masked(url)}: {in_words(found)}. "
            f"As the owner of the tables, run: {grants(found, own.name)}"
        )


def _refuse_missing_schema(connection: Connection, url: str, own: ConnectedRole, *, is_named: bool) -> None:
    """Refuse a `search_path` in the URL whose first schema does not exist: the server would silently use the next one.

    Any other path is refused only if none of its schemas can be used.
    """
    if own.schema is not None and not is_named:
        return
    first = next((name for name in names_in_path(own.search_path) if name != "$user"), "public")
    for quoted, exists in connection.exec_driver_sql(_UNUSABLE, (first,)):
        raise MissingRights(_missing_schema(quoted, masked(url), own.name, exists=exists))


def _missing_schema(name: str, where: str, role: str, *, exists: bool) -> str:
    if exists:
        return f"The role {role} cannot use the schema {name} of {where}; run: GRANT USAGE ON SCHEMA {name} TO {role}"
    return (
        f"The schema {name}, which the search_path of {where} names, does not exist; "
        f"run: CREATE SCHEMA {name} AUTHORIZATION {role}, or name another in the URL"
    )


def names_in_path(search_path: str) -> Iterator[str]:
    """The names in a `search_path`, in their order. Names without quotes are lower case."""
    for quoted, plain in _NAME.findall(search_path):
        yield quoted.replace('""', '"') if quoted else plain.lower()
