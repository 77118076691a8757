"""Calls a model or a client as an application does: in one of the ways of `ways.py`, to its end or until it is left."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple

from tests.oracle import sql


class Got(NamedTuple):
    """What the application got: the text, and the exception that ended it."""

    text: str
    error: BaseException | None


def called(way: Callable[[Any], Any], opened: Callable[[], Any], pieces: int | None = None) -> Got:
    """Call what the context manager of `opened` yields, and leave it after so many pieces of one character at least.

    Each call has a context of its own, so that a later one is none that repeats it.
    """
    if inspect.isasyncgenfunction(way):
        return asyncio.run(_read_async(way, opened, pieces))
    return copy_context().run(_read, way, opened, pieces)


def _read(way: Callable[[Any], Any], opened: Callable[[], Any], pieces: int | None) -> Got:
    got: list[str] = []
    with opened() as model:
        generator = way(model)
        try:
            for piece in generator:
                got += [piece] if piece else []
                if len(got) == pieces:
                    break
        except Exception as error:
            return Got("".join(got), error)
        finally:
            generator.close()
    return Got("".join(got), None)


async def _read_async(way: Callable[[Any], Any], opened: Callable[[], Any], pieces: int | None) -> Got:
    got: list[str] = []
    async with opened() as model:
        generator = way(model)
        try:
            async for piece in generator:
                got += [piece] if piece else []
                if len(got) == pieces:
                    break
        except Exception as error:
            return Got("".join(got), error)
        finally:
            await generator.aclose()
    return Got("".join(got), None)


def name_of(error: BaseException | None) -> str:
    """Return the name under which an exception is recorded."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def text_of(url: str, run_id: str) -> str:
    """Return the recorded text of a run."""
    query = "SELECT text FROM tokens WHERE run_id = ? AND kind = 'text' ORDER BY seq"
    return "".join(text for (text,) in sql(url, query, run_id))
