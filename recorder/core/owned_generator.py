"""Iterates an asynchronous generator that another one owns, so that only the owner closes it.

An event loop closes each asynchronous generator that the garbage collector finds, in a task of its own. If it finds an
owner together with its inner generators, these tasks disturb each other: "aclose(): asynchronous generator is already
running". The owner is closed first or last, and may see that error instead of `GeneratorExit`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

ItemT = TypeVar("ItemT")


class Owned(Generic[ItemT]):
    """`async with Owned(generator) as items: async for item in items`. Like `contextlib.aclosing`.

    The event loop neither knows the generator nor closes it. It may be any asynchronous iterator that nobody has used.
    """

    __slots__ = ("_begun", "_items")

    def __init__(self, items: AsyncIterator[ItemT]) -> None:
        self._items = items
        self._begun = False

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Any:
        if self._begun:
            return self._items.__anext__()
        self._begun = True
        # A generator remembers the hooks of its first call.
        hooks = sys.get_asyncgen_hooks()
        try:
            sys.set_asyncgen_hooks(None, _leave_to_owner)
            return self._items.__anext__()
        finally:
            sys.set_asyncgen_hooks(*hooks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self._items, "aclose"):
            await self._items.aclose()


def _leave_to_owner(_generator: Any) -> None:
    """The hook for a collected generator does nothing."""
