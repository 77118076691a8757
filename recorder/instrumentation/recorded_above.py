"""Which handlers a request is recorded for by the client above: aiohttp can be the transport of a client of httpx."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

#: Tasks, and threads of `asyncio.to_thread`, get it from the code that starts them, so a transport may use either.
_handlers: ContextVar[tuple[Any, ...]] = ContextVar("recorded_above", default=())


def handlers_above() -> tuple[Any, ...]:
    """The handlers for which a client above records the request that is sent now."""
    return _handlers.get()


@contextmanager
def recorded_above(handlers: Sequence[Any]) -> Iterator[None]:
    """Requests that are sent in the `with` block are parts of one that is recorded for these handlers."""
    token = _handlers.set((*_handlers.get(), *handlers))
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine that nobody awaits any more is closed in another context
            _handlers.reset(token)
