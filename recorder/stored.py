"""Text as every database stores it, and back.

NUL, lone surrogates and the escape itself are written as U+FDD0 and four hex digits: Postgres refuses them,
SQLite's functions stop at a NUL, its driver refuses surrogates. SQL shows that form, the Python API the original.
"""

from __future__ import annotations

import re
from typing import Any

from recorder.jsons import dumps

ESCAPE = "\ufdd0"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufdd0]")
_ESCAPED = re.compile("\ufdd0([0-9a-f]{4})")
#: What JSON text has in it when some string of the value cannot be stored as it is.
_SUSPECT = re.compile(r"\\u0000|\\u[dD][89a-fA-F]|" + ESCAPE + r"|\\ufdd0", re.IGNORECASE)


def escape(text: str) -> str:
    """The text in the form that every database stores."""
    return _UNSTORABLE.sub(lambda found: f"{ESCAPE}{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if ESCAPE in text else text


def escape_json(value: Any) -> str:
    """The value as JSON text with every string in it, keys too, escaped where it must be."""
    text = dumps(value)
    return dumps(_mapped(value, escape)) if _SUSPECT.search(text) else text


def unescape_json(value: Any) -> Any:
    """A value read from stored JSON, with its strings as they were."""
    return _mapped(value, unescape)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(entry, change) for entry in value]
    return value
