"""Removes repetitions from a stream: a complete answer at its end, and lists and items that are sent again.

An event of a provider may hold only what is new, or everything so far. Only the new part becomes deltas, so that the
deltas of a stream always add up to the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorder.core.json import dumps

#: At most this many items and lists are remembered, and in full only up to this total size (characters of JSON).
_MAX_ITEMS = 1_000
_MAX_SIZE = 4 * 2**20
#: A text counts as a repetition from this length (characters) on: of a single piece, of several pieces.
_LONG, _SHORT = 8, 4


class Unchanged:
    """The type of `UNCHANGED`, which stands for a value that has nothing new."""


UNCHANGED = Unchanged()


def repeats_all(text: str, pieces: Sequence[str]) -> bool:
    """Whether a text repeats all of the pieces before it."""
    text = text.strip()
    if len(text) < (_SHORT if len(pieces) > 1 else _LONG):
        return False
    return text == "".join(pieces).strip()


def rest_of(text: str, known: str) -> str:
    """The part of a complete text after its known beginning; empty if the text begins differently."""
    return text[len(known) :] if text.startswith(known) else ""


class Items:
    """Remembers the last value of lists and their items."""

    def __init__(self) -> None:
        #: Place -> the value; the hash of a value that is too large; None for an item that is sent in pieces.
        self._known: dict[Any, Any] = {}
        self._size = 0

    def new_items(self, place: tuple[str, str], value: list[Any]) -> list[Any]:
        """The list with the new part of each item that has an index (Groq's `executed_tools`)."""
        return [found for item in value if (found := self._item(place, item)) is not UNCHANGED]

    def new_part(self, place: tuple[str, str], value: Any) -> Any:
        """The new part of a value that is sent repeatedly beside the choices (Perplexity's `citations`)."""
        found = self._beyond(self._known.get(place), value)
        self._remember(place, value)
        return value if found is None else found

    def _item(self, place: tuple[str, str], item: Any) -> Any:
        if not isinstance(item, dict) or type(item.get("index")) is not int:
            return item
        where = (*place, item["index"], str(item.get("id")))
        known = self._known.get(where)
        if known is None:
            if where not in self._known:
                self._remember(where, item)
            return item
        found = (
            self._beyond(known, item) if not isinstance(known, dict) or _is_extended(known, item) else None
        )
        # An item that was sent in pieces once is sent in pieces to its end.
        self._remember(where, None if found is None else item)
        if found is None or found is UNCHANGED:
            return found or item
        return {"index": item["index"], **found}

    def _beyond(self, known: Any, value: Any) -> Any:
        if isinstance(known, int):
            return UNCHANGED if known == hash(dumps(value)) else None
        return difference(known, value)

    def _remember(self, place: Any, value: Any) -> None:
        text = dumps(value)
        if place not in self._known:
            if len(self._known) >= _MAX_ITEMS:
                return
            self._size += len(text)
        self._known[place] = value if self._size <= _MAX_SIZE else hash(text)


def _is_extended(known: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Whether an item contains the known one, and is not another piece: it has more keys, or is equal and nested."""
    if known.keys() < item.keys():
        return True
    return known == item and any(isinstance(value, (dict, list)) for value in item.values())


def difference(known: Any, value: Any) -> Any:
    """What a value has beyond a known one: `UNCHANGED` for nothing, None if it does not contain the known one."""
    if isinstance(known, dict) and isinstance(value, dict):
        return _more_keys(known, value)
    if isinstance(known, list) and isinstance(value, list):
        if value[: len(known)] != known:
            return None
        return value[len(known) :] or UNCHANGED
    if type(known) is type(value) and known == value:
        return UNCHANGED
    return value if known is None else None


def _more_keys(known: dict[str, Any], value: dict[str, Any]) -> Any:
    found: dict[str, Any] = {}
    for key, old in known.items():
        if old is None and value.get(key) is None:
            continue
        part = difference(old, value[key]) if key in value else None
        if part is None:
            return None
        if part is not UNCHANGED:
            found[key] = part
    found |= {key: value[key] for key in value.keys() - known.keys()}
    return found or UNCHANGED
