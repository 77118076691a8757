"""The INSERT statement for Postgres: a parameter for each column, and what happens to rows that are stored already.

The driver checks and encodes each value of an array by itself. A JSON list of texts or numbers takes a tenth of that
time. Many columns of a batch have one value only, mostly NULL; it is sent once. Columns of JSON are sent as arrays,
because a list would escape every quote in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import BigInteger, Double, Table, Text
from sqlalchemy.dialects import postgresql

from recorder.core.clock import iso_each
from recorder.core.json import dumps
from recorder.storage.dialects.common import Insert
from recorder.storage.schema import Id, Time

#: How the values of a column are sent: one value for all rows, a JSON list, or an array.
Form = Literal["value", "json", "array"]
#: The types of columns whose values are sent as a JSON list. The server reads each value from its text.
_AS_JSON = Text, Id, Time, BigInteger


class SentColumn(NamedTuple):
    """One column of an insert."""

    name: str
    form: Form


class Kind(NamedTuple):
    """An `Insert` without its values."""

    table: Table
    columns: tuple[SentColumn, ...]
    update: tuple[str, ...]
    same: tuple[str, ...]


def prepared(insert: Insert) -> tuple[Kind, list[Any]]:
    """The kind of the insert and its parameters, one for each column."""
    columns: list[SentColumn] = []
    parameters: list[Any] = []
    for name, values in zip(insert.columns, zip(*insert.rows, strict=True), strict=True):
        # The first column is never one value: it tells how many rows there are.
        type_ = insert.table.c[name].type
        form = _form(type_, values) if columns else "json"
        columns.append(SentColumn(name, form))
        parameters.append(_parameter(form, type_, values))
    return Kind(insert.table, tuple(columns), tuple(insert.update), tuple(insert.same)), parameters


def _form(type_: Any, values: Sequence[Any]) -> Form:
    # Of floats, 0.0 and -0.0 are equal and not the same.
    is_one = values[0] == values[-1] and values.count(values[0]) == len(values)
    if is_one and not isinstance(type_, Double):
        return "value"
    return "json" if isinstance(type_, _AS_JSON) else "array"


def _parameter(form: Form, type_: Any, values: Sequence[Any]) -> Any:
    if form == "value":
        return values[0]
    if isinstance(type_, Time):
        values = iso_each(values)
    return dumps(values) if form == "json" else list(values)


@lru_cache(maxsize=256)
def insert_statement(kinds: tuple[Kind, ...], announce: str | None) -> str:
    """One statement with all inserts, and `announce` as one more column. Its result is one row: the count of each."""
    first, parts, counts = 1, [], []
    for number, kind in enumerate(kinds):
        parts.append(f"i{number} AS ({_insert(kind, first)} RETURNING 1)")
        counts.append(f"(SELECT count(*) FROM i{number})")
        first += len(kind.columns)
    if announce is not None:
        counts.append(announce)
    return f"{'WITH ' if parts else ''}{', '.join(parts)} SELECT {', '.join(counts)}"


def _insert(kind: Kind, first: int) -> str:
    table, columns, update, same = kind
    names = ", ".join(f'"{column.name}"' for column in columns)
    values = ", ".join(_value(table, column, place) for place, column in enumerate(columns, first))
    lists = {
        column.name: _list(table, column, place)
        for place, column in enumerate(columns, first)
        if column.form != "value"
    }
    given = ", ".join(f'"{name}"' for name in lists)
    rows = f"SELECT {values} FROM ROWS FROM ({', '.join(lists.values())}) AS given ({given})"
    sql = f'INSERT INTO "{table.name}" ({names}) {rows} ON CONFLICT '
    if not update:
        return sql + "DO NOTHING"
    key = ", ".join(column.name for column in table.primary_key)
    sets = ", ".join(f'"{name}" = excluded."{name}"' for name in update)
    sql += f"({key}) DO UPDATE SET {sets}"
    equal = " AND ".join(f'"{table.name}"."{name}" IS NOT DISTINCT FROM excluded."{name}"' for name in same)
    return f"{sql} WHERE {equal}" if equal else sql


def _value(table: Table, column: SentColumn, place: int) -> str:
    value = f"${place}" if column.form == "value" else f'"{column.name}"'
    return f"{value}::{_type_of(table, column.name)}"


def _list(table: Table, column: SentColumn, place: int) -> str:
    if column.form == "json":
        return f"json_array_elements_text(${place}::json)"
    return f"unnest(${place}::{_type_of(table, column.name)}[])"


@cache
def _type_of(table: Table, name: str) -> str:
    return str(table.c[name].type.compile(dialect=_COMPILER))


_COMPILER = postgresql.dialect()  # type: ignore[no-untyped-call]
