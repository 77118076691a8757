"""Which text of a message is searched: its text, and the names and arguments of its tool calls.

Not searched are reasoning, images and other parts that are no text, encoded bytes, and what is longer than the limits
below. Only the columns of the row are needed, so a message that was stored earlier is indexed like a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recorder.core.escaping import unescape
from recorder.errors import StoreError
from recorder.storage.row_checks import json_of
from recorder.storage.search.segmentation import index_words, without_encoded

#: The first characters of a message's text that are searched, and those of a tool's result or of a tool call. All words
#: of the longest text are less than the megabyte that a `tsvector` can have.
MAX_TEXT = 65_536
MAX_TOOL_TEXT = 8_192
#: Tool calls of one message that are searched.
_MOST_CALLS = 16
#: Values of the arguments of one tool call that are searched.
_MOST_VALUES = 1_000
_TOOL = "tool"


def own_text(role: str, content: str) -> str:
    """The searched part of a message's text; a place in it is the same place in all of the text.

    `content` is the column as it is stored.
    """
    return unescape(content[: MAX_TOOL_TEXT if role == _TOOL else MAX_TEXT])


def call_texts(parts: str | None) -> list[str]:
    """The searched text of each tool call in the column `parts`; none for a damaged row."""
    if parts is None or ('"tool_calls"' not in parts and '"invalid_tool_calls"' not in parts):
        return []
    try:
        stored = json_of(parts, "parts")
    except StoreError:
        return []
    calls = [call for name in ("tool_calls", "invalid_tool_calls") for call in _listed(stored, name)]
    return [_call_text(call) for call in calls[:_MOST_CALLS]]


def words_of_row(role: str, content: str, parts: str | None) -> str:
    """The words by which a message is found, each once, with spaces between them; "" if it has none."""
    words = index_words(without_encoded(own_text(role, content)))
    for text in call_texts(parts):
        words |= index_words(without_encoded(text))
    return " ".join(words)


def _listed(stored: Any, name: str) -> list[Any]:
    found = stored.get(name) if isinstance(stored, dict) else None
    return found if isinstance(found, list) else []


def _call_text(call: Any) -> str:
    if not isinstance(call, Mapping):
        return ""
    texts = [str(call.get("name") or ""), *_values(call.get("args"))]
    return " ".join(texts)[:MAX_TOOL_TEXT]


def _values(arguments: Any) -> Iterator[str]:
    """The keys and values in their order. A loop: arguments may be nested deeper than Python can recurse."""
    waiting, count = [arguments], 0
    while waiting and count < _MOST_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, Mapping):
            for key, each in reversed(list(value.items())):
                waiting += (each, str(key))
        elif isinstance(value, list):
            waiting += reversed(value)
        elif value is not None:
            yield str(value)
