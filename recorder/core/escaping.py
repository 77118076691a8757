"""Text as every database stores it, and back.

NUL, lone surrogates and the escape itself are written as U+FDD0 and four hex digits: Postgres refuses them,
SQLite's functions stop at a NUL, its driver refuses surrogates. SQL shows that form, the Python API the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from recorder.core.json import dumps, loads

ESCAPE = "\ufdd0"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufdd0]")
_ESCAPED = re.compile("\ufdd0([0-9a-f]{4})")
#: What JSON text has in it when some string of the value cannot be stored as it is.
_SUSPECT = re.compile(r"\\u0000|\\ud[89a-f]|\\ufdd0|" + ESCAPE, re.IGNORECASE)


def escape(text: str) -> str:
    """The text in the form that every database stores."""
    if text.isascii() and "\0" not in text:
        return text  # seen at once, where the pattern would look at every letter
    return _UNSTORABLE.sub(lambda found: f"{ESCAPE}{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if ESCAPE in text else text


def escape_json(value: Any, text: str | None = None) -> str:
    """The value as JSON text with every string in it, keys too, escaped where it must be; `text` is its `dumps`."""
    text = dumps(value) if text is None else text
    return dumps(_mapped(value, escape)) if _SUSPECT.search(text) else text


def unescape_json(value: Any) -> Any:
    """A value read from stored JSON, with its strings as they were."""
    return _mapped(value, unescape)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A copy with each string changed, keys too; a loop, for JSON may be nested deeper than Python calls."""
    copy = [value]
    unread: list[Any] = [copy]
    while unread:
        container = unread.pop()
        for key, entry in list(container.items() if isinstance(container, dict) else enumerate(container)):
            container[key] = changed = _changed(entry, change)
            if isinstance(changed, (dict, list)):
                unread.append(changed)
    return copy[0]


def _changed(entry: Any, change: Callable[[str], str]) -> Any:
    """One entry: a text or a dict's keys changed, the rest as it is; other objects as their JSON is."""
    if isinstance(entry, str):
        return change(entry)
    if isinstance(entry, dict):
        return {change(key) if isinstance(key, str) else key: value for key, value in entry.items()}
    if isinstance(entry, (list, tuple)):
        return list(entry)
    if entry is None or isinstance(entry, (bool, int, float)):
        return entry
    return _changed(loads(dumps(entry)), change)
