"""A set of weak references that can be read while other threads add to it.

`list(weakref.WeakSet())` raises `RuntimeError` if another thread adds an object meanwhile.
"""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

T = TypeVar("T")


class Living(Generic[T]):
    """The objects that were added and are not garbage-collected yet. Takes no lock."""

    def __init__(self) -> None:
        self._by_id: weakref.WeakValueDictionary[int, T] = weakref.WeakValueDictionary()

    def add(self, item: T) -> None:
        """Add an object, unless it is there already."""
        self._by_id[id(item)] = item

    def now(self) -> list[T]:
        """The objects that live now."""
        # `valuerefs` copies the references in one step.
        return [item for reference in self._by_id.valuerefs() if (item := reference()) is not None]

    def clear(self) -> None:
        """Remove all."""
        self._by_id.clear()
