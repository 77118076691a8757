"""The columns of row types, from which tables, checks and exports derive theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from recorder.storage import inserts
from recorder.storage.columns import Column, JsonText, Uuid, columns_of, names_of
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import RunRow

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Plain:
    """A row as a dataclass."""

    id: Uuid
    note: JsonText | None
    score: float | None = None


class Boxed(NamedTuple, Generic[Value]):
    """A row whose subclasses give the type of `value`."""

    name: str
    value: Value | None


class BoxedList(Boxed[list[Any]]):
    """A row with a list."""


def test_columns_have_type_format_and_null() -> None:
    """They stand in the order of the fields, and a default makes no column nullable."""
    assert columns_of(Plain) == (
        Column("id", str, "uuid", False),
        Column("note", str, "json", True),
        Column("score", float, None, True),
    )
    assert names_of(Plain) == ("id", "note", "score")


def test_a_subclass_decides_the_type_of_a_generic_column() -> None:
    """The type of a list column is the plain `list`, so that a value can be checked with `isinstance`."""
    assert columns_of(BoxedList) == (Column("name", str, None, False), Column("value", list, None, True))


def test_a_run_is_read_with_decoded_json() -> None:
    """All other columns have the same type in the database and in Python."""
    decoded = {
        column.name: column.type for column in columns_of(RecordedRun) if column not in columns_of(RunRow)
    }
    assert decoded == {
        "usage": dict, "request": dict, "metadata": dict, "tags": list, "instructions": list, "input": list,
        "output": dict, "price": dict, "redaction": dict,
    }  # fmt: skip
    assert all(column.format == "json" for column in columns_of(RunRow) if column.name in decoded)


def test_start_and_end_of_a_run_write_all_columns() -> None:
    """Only pruning sets `pruned_at`; a field without a column would be lost silently."""
    written = [*inserts._RUN_COLUMNS, *inserts.SEAL_COLUMNS]
    assert sorted([*written, "pruned_at"]) == sorted(RunRow._fields)
