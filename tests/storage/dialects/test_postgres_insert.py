"""Rows arrive in Postgres as they are, in whatever form their columns are sent."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from math import copysign
from typing import Any

import pytest
from sqlalchemy import select

from recorder.core.escaping import escape
from recorder.storage.dialects import Insert
from recorder.storage.dialects.postgres_insert import prepared
from recorder.storage.rows import AnnotationRow, FrameRow, MessageRow
from recorder.storage.schema import TABLES, row_columns
from recorder.storage.store import SqlStore
from tests import postgres
from tests.stores import using

START = datetime(2026, 11, 21, tzinfo=UTC)
TEXTS = [escape(text) for text in ('ü"\\\x7f\n\t\u2028 \\u0041', "", "null", "{a,b}", "😀", "\x00", "\ud83d")]


def id_of(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def messages(texts: Sequence[str]) -> list[MessageRow]:
    """Rows in which some columns differ, some are None, and some are equal."""
    at = [START + timedelta(microseconds=number) for number in range(len(texts))]
    return [
        MessageRow(
            text or "c", id_of(number), id_of(number - 1) if number else None, number, "user", text,
            '{"a": 1e400, "b":"\\u0041"}' if number % 2 else None, None, at[number], -(2**63) + number, None,
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip


ROWS: list[Sequence[tuple[Any, ...]]] = [
    messages(TEXTS),
    messages(TEXTS[:1]),
    [
        AnnotationRow(id_of(1), id_of(number), None, name, label, score, None, START)
        for number, (name, label, score) in enumerate(product(("a", "b"), ("x", None), (0.0, -0.0, 1e-9)))
    ],
    [FrameRow(id_of(1), number, 0, 1, 5, bytes([number, 0, 255]), None) for number in range(3)],
]


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: f"{len(rows)} {type(rows[0]).__name__}")
def test_rows_are_read_as_they_were_inserted(rows: Sequence[Any]) -> None:
    """Texts with any characters, JSON byte for byte, NULL, negative zero."""
    url, table = postgres.new_database(), TABLES[type(rows[0])]

    async def story(store: SqlStore) -> list[tuple[Any, ...]]:
        async with store.transaction() as connection:
            statements = store.dialect.statements([Insert(table, type(rows[0])._fields, rows)])
            assert await store.dialect.insert(connection, statements) == [len(rows)]
        return [tuple(row) for row in await store.fetch(select(*row_columns(type(rows[0]))))]

    found = using(url, story)
    postgres.drop(url)
    assert set(found) == set(map(tuple, rows))
    if isinstance(rows[0], AnnotationRow):
        assert sorted(copysign(1, row[5]) for row in found) == sorted(copysign(1, row.score) for row in rows)


def test_a_column_of_one_value_is_sent_once() -> None:
    """Only the first column always has a value for each row."""
    table = TABLES[FrameRow]
    kind, parameters = prepared(
        Insert(table, ("run_id", "seq", "count", "data"), [(id_of(1), 0, 7, b"a"), (id_of(1), 1, 7, b"b")])
    )
    assert [column.form for column in kind.columns] == ["json", "json", "value", "array"]
    assert parameters == [f'["{id_of(1)}","{id_of(1)}"]', "[0,1]", 7, [b"a", b"b"]]
