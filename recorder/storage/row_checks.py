"""Rows of a database that anybody may have written: each value is of its column's kind, or an error says so.

SQLite keeps whatever it is given in any column, and a stranger's file may have other tables under the names of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from sqlalchemy.exc import StatementError

from recorder.core.escaping import unescape_json
from recorder.core.json import loads
from recorder.errors import RecorderError, StoreError
from recorder.storage.dialects import error_text
from recorder.storage.dialects.common import ROW_ERRORS
from recorder.storage.frame_block import MAX_OFFSET

T = TypeVar("T")

#: How a kind is called; what is shown of a value (characters).
_NAMES: Mapping[type[Any], str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bytes: "bytes",
    datetime: "a time",
    dict: "an object",
    list: "a list",
}
_SHOWN = 60
#: The most tokens, frames or places that there can be: the sum of two is an integer of 64 bits, too.
_MOST = 2**62
_NUMBERS = ("seq", "count", "position", "first_delta")


def row_of(made: Callable[..., T], values: Sequence[Any]) -> T:
    """The row of these values. Raises `StoreError` for one that its column cannot hold."""
    for (name, kinds), value in zip(_columns_of(made), values, strict=True):
        if type(value) not in kinds and not _is_time(value, kinds):
            raise StoreError(_other(made, name, kinds, value))
        if name in _NUMBERS and not 0 <= value < _MOST:
            raise StoreError(f"{_table(made)}: {name} cannot be {value}; the row is damaged")
        if name == "at_us" and abs(value) >= MAX_OFFSET:
            raise StoreError(f"{_table(made)}: {name} cannot be {value}; the row is damaged")
    return made(*values)


def _is_time(value: Any, kinds: frozenset[type[Any]]) -> bool:
    """Whether it is a time of a subclass: libraries that set the clock of tests put one in place of `datetime`."""
    return datetime in kinds and isinstance(value, datetime)


def json_of(text: Any, where: str) -> Any:
    """The value of stored JSON text. Raises `StoreError` for what is none."""
    try:
        return unescape_json(loads(text))
    except ROW_ERRORS as error:
        raise StoreError(f"{where} is no JSON ({_shown(error)}); the row is damaged") from error


@contextmanager
def readable(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Around questions to a database: what the driver raises, of these `errors`, and what comes of odd rows is a
    `StoreError`."""
    try:
        yield
    except RecorderError:
        raise
    except errors as error:
        raise StoreError(f"The database says: {error_text(error)}") from error
    except (StatementError, *ROW_ERRORS) as error:  # the former of an id that was read and is none
        cause = getattr(error, "orig", None) or error
        raise StoreError(
            f"The database holds a row that recorder cannot read ({type(cause).__name__}: {_shown(cause)}); it is "
            "damaged, or another program has written it"
        ) from error


@cache
def _columns_of(made: Any) -> tuple[tuple[str, frozenset[type[Any]]], ...]:
    hints = get_type_hints(made)
    names = made.__dataclass_fields__ if is_dataclass(made) else made._fields
    return tuple((name, _kinds(hints[name])) for name in names)


def _kinds(hint: Any) -> frozenset[type[Any]]:
    kinds = {get_origin(kind) or kind for kind in _alternatives(hint)}
    return frozenset(kinds | ({int} if float in kinds else set()))


def _alternatives(hint: Any) -> Sequence[Any]:
    return get_args(hint) if NoneType in get_args(hint) else (hint,)


def _other(made: Any, name: str, kinds: frozenset[type[Any]], value: Any) -> str:
    wanted = " or ".join(sorted(_NAMES[kind] for kind in kinds if kind in _NAMES))
    return (
        f"{_table(made)}: {name} is {_shown(value)} and not {wanted}; the row is damaged, or not recorder's"
    )


def _table(made: Any) -> str:
    return str(made.__name__).removesuffix("Row").removeprefix("Recorded").lower()


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
