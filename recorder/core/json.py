"""JSON that takes whatever a provider or an application sends: orjson first, the stricter cases by `json`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from typing import Any

import orjson

#: A string, to be left alone, or what Python writes for numbers that JSON does not have.
_NO_NUMBER = re.compile(r'"(?:[^"\\]+|\\.)*"|-?Infinity|NaN')


def loads(text: bytes | str) -> Any:
    """The value; lone surrogates, NaN and invalid UTF-8 are taken too. Raises `ValueError` for no JSON.

    Integers over 64 bits come as floats: looking for them costs more than all the rest.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # The standard library takes what orjson refuses.
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        try:
            return json.loads(plain)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Compact JSON text, never an error; NaN is written as null, as orjson does.

    An object that has no JSON is written as its `model_dump()` or `str()`; a value that goes round in
    circles, or deeper than Python can follow, as a text that says so.
    """
    options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(value, default=_plain, option=options).decode()
    except TypeError:
        # orjson refuses lone surrogates, integers over 64 bits, other keys and what is nested deeply.
        return _dumps_slowly(value, sort_keys)


def _dumps_slowly(value: Any, sort_keys: bool) -> str:
    try:
        text = json.dumps(value, default=_plain, sort_keys=sort_keys, separators=(",", ":"), skipkeys=True)
    except Exception as error:  # of the value's own methods, too
        return json.dumps(f"{type(value).__name__} without JSON ({type(error).__name__})")
    return _NO_NUMBER.sub(lambda found: found[0] if found[0][0] == '"' else "null", text)


def _plain(value: Any) -> Any:
    """What stands for an object; orjson itself knows dataclasses, enumerations and times, and `json` does not."""
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
