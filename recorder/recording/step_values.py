"""What a chain, a tool or a retriever got and returned, as JSON of limited size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from recorder.storage.storable_values import text_of

#: Characters of all texts together; what is longer is cut. An agent's state holds the messages of all its turns.
MAX_CHARACTERS = 20_000
#: So many characters each value counts beside its text, so that numbers have a limit, too.
_VALUE_COST = 4
#: So many levels of objects in objects are kept, and so many items of each list.
_MAX_DEPTH, _MAX_ITEMS = 8, 100
#: Characters of a key.
_MAX_KEY = 200
#: Type of a message -> what is kept of it beside its type and its content.
_MORE = {"ai": ("tool_calls",), "AIMessageChunk": ("tool_calls",), "tool": ("name", "tool_call_id")}


def shortened(value: Any) -> Any:
    """The value as JSON can hold it: messages and documents as objects, long texts and lists cut."""
    return _Shortener().value(value, 0)


class _Shortener:
    """Counts the characters that are left."""

    def __init__(self) -> None:
        self._left = MAX_CHARACTERS

    def value(self, value: Any, depth: int) -> Any:
        self._left -= _VALUE_COST
        if type(value) is str:  # nearly always
            return self._text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self._text(str(value))
        if depth >= _MAX_DEPTH or self._left <= 0:
            return "..."
        if isinstance(value, Mapping):
            return self._object(value.items(), depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(value, depth)
        return self._fields(value, depth)

    def _text(self, text: str) -> str:
        if len(text) <= self._left:
            self._left -= len(text)
            return text
        kept = text[: max(self._left, 0)]
        self._left -= len(text)
        return kept if len(kept) == len(text) else f"{kept}... ({len(text):,} characters)"

    def _object(self, items: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if len(found) >= _MAX_ITEMS or self._left <= 0:
                found["..."] = "more"
                break
            found[str(key)[:_MAX_KEY]] = self.value(value, depth + 1)
        return found

    def _list(self, values: Any, depth: int) -> list[Any]:
        found: list[Any] = []
        for value in values:
            if len(found) >= _MAX_ITEMS or self._left <= 0:
                found.append(f"... ({len(values):,} items)")
                break
            found.append(self.value(value, depth + 1))
        return found

    def _fields(self, value: Any, depth: int) -> Any:
        """The fields of a message, a document or another object of data; the text of anything else."""
        if isinstance(kind := getattr(value, "type", None), str) and hasattr(value, "content"):
            fields: dict[str, Any] = {"type": kind, "content": value.content}
            fields |= {name: found for name in _MORE.get(kind, ()) if (found := getattr(value, name, None))}
        elif hasattr(value, "page_content"):
            fields = {"page_content": value.page_content, "metadata": getattr(value, "metadata", None)}
        elif is_dataclass(value) and not isinstance(value, type):
            fields = asdict(value)
        elif callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
            fields = dump()
        else:
            return self._text(text_of(value) or "")
        return self._object(fields.items(), depth)
