"""Escapes text so that every database can store it, and restores it.

NUL, lone surrogates and the escape character U+FDD0 itself are written as U+FDD0 and four hex digits. Postgres refuses
NUL and surrogates, SQLite's functions stop at a NUL, and SQLite's driver refuses surrogates. SQL shows the escaped
text, and the Python API shows the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from recorder.core.json import dumps, loads

ESCAPE = "\ufdd0"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufdd0]")
_ESCAPED = re.compile("\ufdd0([0-9a-f]{4})")
#: Matches JSON text in which some string needs escaping.
_SUSPECT = re.compile(r"\\u0000|\\ud[89a-f]|\\ufdd0|" + ESCAPE, re.IGNORECASE)


def escape(text: str) -> str:
    """The text in the form that every database can store."""
    if text.isascii() and "\0" not in text:
        return text  # a fast check; the pattern would scan every character
    return _UNSTORABLE.sub(lambda found: f"{ESCAPE}{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The original of a text that `escape` returned."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if ESCAPE in text else text


def escape_json(value: Any, text: str | None = None) -> str:
    """The value as JSON text; strings and keys are escaped. `text` is `dumps(value)`, if the caller has it."""
    text = dumps(value) if text is None else text
    return dumps(_mapped(value, escape)) if may_need_escape(text) else text


def may_need_escape(json: str) -> bool:
    """Whether some string in this JSON text may need to be escaped."""
    return _SUSPECT.search(json) is not None


def unescape_json(value: Any) -> Any:
    """A value that was read from stored JSON, with its original strings and keys."""
    return _mapped(value, unescape)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A copy with every string and key changed. A loop: JSON may be nested deeper than Python can recurse."""
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
    """One entry with its text or its keys changed. An object that is not plain JSON is converted first."""
    if isinstance(entry, str):
        return change(entry)
    if isinstance(entry, dict):
        return {change(key) if isinstance(key, str) else key: value for key, value in entry.items()}
    if isinstance(entry, (list, tuple)):
        return list(entry)
    if entry is None or isinstance(entry, (bool, int, float)):
        return entry
    return _changed(loads(dumps(entry)), change)
