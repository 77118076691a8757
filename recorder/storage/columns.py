"""The columns of a row type, from its annotations. Tables, checks and the export derive their columns from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

Format = Literal["uuid", "json", "escaped"]

#: A dashed lower-case UUID.
Uuid = Annotated[str, "uuid"]
#: JSON, byte for byte as it was written.
JsonText = Annotated[str, "json"]
#: Text of a provider or a library. NUL, lone surrogates and U+FDD0 are escaped in it, and readers unescape it.
EscapedText = Annotated[str, "escaped"]


class Column(NamedTuple):
    """One column of a row type."""

    name: str
    #: For example str, int or datetime; dict or list for decoded JSON.
    type: type[Any]
    #: None for text without a special format, and for other types.
    format: Format | None
    is_nullable: bool


@cache
def columns_of(row_type: Any) -> tuple[Column, ...]:
    """The columns of a dataclass or NamedTuple, in order; of a generic one with the types of its subclass."""
    hints = get_type_hints(row_type, include_extras=True)
    names = row_type.__dataclass_fields__ if is_dataclass(row_type) else row_type._fields
    arguments = _type_arguments(row_type)
    return tuple(_column(name, hints[name], arguments) for name in names)


def names_of(row_type: Any) -> tuple[str, ...]:
    """The names of the columns, in order."""
    return tuple(column.name for column in columns_of(row_type))


def _type_arguments(row_type: Any) -> Mapping[Any, Any]:
    """What a subclass of a generic row type has in place of the type variables."""
    found: dict[Any, Any] = {}
    for base in getattr(row_type, "__orig_bases__", ()):
        found |= zip(getattr(get_origin(base), "__parameters__", ()), get_args(base), strict=False)
    return found


def _column(name: str, hint: Any, arguments: Mapping[Any, Any]) -> Column:
    alternatives = get_args(hint) if NoneType in get_args(hint) else (hint,)
    [kind] = (arguments.get(each, each) for each in alternatives if each is not NoneType)
    format = kind.__metadata__[0] if get_origin(kind) is Annotated else None
    plain = get_args(kind)[0] if format else kind
    return Column(name, get_origin(plain) or plain, format, NoneType in alternatives)
