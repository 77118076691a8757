"""JSON that takes whatever a provider or an application sends: orjson first, the stricter cases by `json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson


def loads(text: bytes | str) -> Any:
    """The value; lone surrogates, huge integers and NaN are taken too. Raises `ValueError` for no JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson refuses escaped lone surrogates, NaN and invalid UTF-8; the standard library takes them.
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        try:
            return json.loads(plain)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Compact JSON text; an object that has none is written as its `model_dump()`, `dict()` or `str()`."""
    options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(value, default=_plain, option=options).decode()
    except (TypeError, orjson.JSONEncodeError):
        return json.dumps(value, default=_plain, sort_keys=sort_keys, separators=(",", ":"), skipkeys=True)


def _plain(value: Any) -> Any:
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json") if not isinstance(value, type) else str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    return str(value)
