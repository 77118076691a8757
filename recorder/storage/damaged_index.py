"""Stores a batch without the index of the search if the index is damaged, so that recording goes on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from recorder.storage.dialects import Dialect
from recorder.storage.failures import error_text

log = logging.getLogger("recorder")

T = TypeVar("T")


async def stored_without_damaged_index(dialect: Dialect, store: Callable[[], Awaitable[T]]) -> T:
    """What `store` returns, which is one transaction. If it fails and succeeds without the index, no further message
    is indexed by this process; the search finds such messages all the same, and `recorder migrate` makes the index
    again."""
    try:
        return await store()
    except dialect.errors as error:
        if not dialect.may_be_of_index(error):
            raise
        cause = error_text(error)
    dialect.has_index = False
    try:
        found = await store()
    except BaseException:
        dialect.has_index = True
        raise
    log.error("The index of the search is damaged (%s); run `recorder migrate`, which makes it again", cause)
    return found
