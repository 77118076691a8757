"""Marks the requests that recorder's own models send. They are recorded by the model, and not once more below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_own: ContextVar[bool] = ContextVar("is_own_call", default=False)


def is_own_call() -> bool:
    """Whether the request that is sent now is one of recorder's own models."""
    return _is_own.get()


@contextmanager
def own_call() -> Iterator[None]:
    """Requests that are sent in the `with` block are those of recorder's own models."""
    token = _is_own.set(True)
    try:
        yield
    finally:
        _is_own.reset(token)
