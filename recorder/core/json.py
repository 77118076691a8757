"""JSON for anything that a provider or an application sends: orjson first, then `json` for what orjson refuses."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from typing import Any

import orjson

#: A JSON string (left unchanged), or what Python writes for numbers that JSON does not have.
_NO_NUMBER = re.compile(r'"(?:[^"\\]+|\\.)*"|-?Infinity|NaN')


def loads(text: bytes | str) -> Any:
    """Parse JSON text. Lone surrogates, NaN and invalid UTF-8 are accepted. Raises `ValueError` for other text.

    Integers over 64 bits become floats: a search for them would cost more than the parsing.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # The standard library accepts what orjson refuses.
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        try:
            return json.loads(plain)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Compact JSON text of any value. Never raises. NaN is written as null, as orjson does.

    An object without a JSON form is written as its `model_dump()` or `str()`. A value that contains itself, or that is
    nested deeper than Python can recurse, is replaced by a text that says so.
    """
    options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(value, default=_plain, option=options).decode()
    except TypeError:
        # orjson refuses lone surrogates, integers over 64 bits, unusual keys and deep nesting.
        return _dumps_slowly(value, sort_keys)


def _dumps_slowly(value: Any, sort_keys: bool) -> str:
    try:
        text = json.dumps(value, default=_plain, sort_keys=sort_keys, separators=(",", ":"), skipkeys=True)
    except Exception as error:  # the value's own methods may raise anything
        return json.dumps(f"{type(value).__name__} without JSON ({type(error).__name__})")
    return _NO_NUMBER.sub(lambda found: found[0] if found[0][0] == '"' else "null", text)


def _plain(value: Any) -> Any:
    """A JSON form of an object. orjson handles dataclasses, enums and times by itself; `json` needs this function."""
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)
