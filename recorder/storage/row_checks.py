"""Checks that each value of a row has the type of its column.

SQLite stores any value in any column, and another program's file may have different tables with recorder's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, TypeVar

from sqlalchemy.exc import StatementError

from recorder.core.escaping import unescape_json
from recorder.core.json import loads
from recorder.errors import RecorderError, StoreError
from recorder.storage.columns import Column, columns_of
from recorder.storage.failures import ROW_ERRORS, error_text
from recorder.storage.frame_block import MAX_OFFSET

T = TypeVar("T")

#: The types' names in messages.
_NAMES: Mapping[type[Any], str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bytes: "bytes",
    datetime: "a time",
    dict: "an object",
    list: "a list",
}
#: How much of a value a message shows (characters).
_SHOWN = 60
#: The limit of counts and positions; the sum of two still fits into 64 bits.
_MOST = 2**62
_NUMBERS = ("seq", "count", "position", "first_delta")


def row_of(row_type: Callable[..., T], values: Sequence[Any]) -> T:
    """A row with these values. Raises `StoreError` for a value that its column cannot have."""
    for (name, kinds), value in zip(_kinds_of(row_type), values, strict=True):
        if type(value) not in kinds and not _is_time(value, kinds):
            raise StoreError(_wrong_type(row_type, name, kinds, value))
        if name in _NUMBERS and not 0 <= value < _MOST:
            raise StoreError(f"{_table(row_type)}: {name} cannot be {value}; the row is damaged")
        if name == "at_us" and abs(value) >= MAX_OFFSET:
            raise StoreError(f"{_table(row_type)}: {name} cannot be {value}; the row is damaged")
    return row_type(*values)


def _is_time(value: Any, kinds: frozenset[type[Any]]) -> bool:
    """Whether the value is a `datetime` of a subclass; libraries that set the clock of tests use subclasses."""
    return datetime in kinds and isinstance(value, datetime)


def json_of(text: Any, where: str) -> Any:
    """The value of stored JSON text. Raises `StoreError` for invalid JSON; `where` names the column."""
    try:
        return unescape_json(loads(text))
    except ROW_ERRORS as error:
        raise StoreError(f"{where} is not JSON ({_shown(error)}); the row is damaged") from error


@contextmanager
def readable(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """For queries: raises `StoreError` instead of the driver's `errors` and of Python's errors from damaged rows."""
    try:
        yield
    except RecorderError:
        raise
    except errors as error:
        raise StoreError(f"The database says: {error_text(error)}") from error
    except (StatementError, *ROW_ERRORS) as error:  # StatementError: an id from a row that is not a UUID
        cause = getattr(error, "orig", None) or error
        raise StoreError(
            f"The database has a row that recorder cannot read ({type(cause).__name__}: {_shown(cause)}); it is "
            "damaged, or another program has written it"
        ) from error


@cache
def _kinds_of(row_type: Any) -> tuple[tuple[str, frozenset[type[Any]]], ...]:
    """The types of values that each column may have."""
    return tuple((column.name, _kinds(column)) for column in columns_of(row_type))


def _kinds(column: Column) -> frozenset[type[Any]]:
    kinds = {column.type, NoneType} if column.is_nullable else {column.type}
    return frozenset(kinds | ({int} if column.type is float else set()))


def _wrong_type(row_type: Any, name: str, kinds: frozenset[type[Any]], value: Any) -> str:
    wanted = " or ".join(sorted(_NAMES[kind] for kind in kinds if kind in _NAMES))
    return f"{_table(row_type)}: {name} is {_shown(value)} and not {wanted}; the row is damaged, or another program's"


def _table(row_type: Any) -> str:
    return str(row_type.__name__).removesuffix("Row").removeprefix("Recorded").lower()


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
