"""A database whose libraries are imported by the writer's thread, so that a running event loop does not wait for them.

A fork waits for the import. Otherwise the child would have half of each module, and the lock of a thread that is gone.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial
from importlib.util import find_spec

from recorder.config import Config
from recorder.core.living import Living
from recorder.storage.batch import Batch
from recorder.storage.failures import Failure
from recorder.storage.rows import Producer
from recorder.storage.store_interface import Store

#: URLs that are certainly right: they have no characters with a meaning in URLs, and no parameters but `sslmode`.
#: Whether another URL is right is known only with the libraries.
_SQLITE = re.compile(r"sqlite:///(?P<file>[\w./-]+)")
_POSTGRES = re.compile(
    r"postgres(?:ql)?://(?:\w+(?::\w*)?@)?[\w.-]+(?::\d+)?/\w+(?:\?sslmode=(?:disable|prefer|require))?"
)

#: Held while a thread imports, and by a thread that forks.
_importing = threading.RLock()


def is_plain(url: object, *, sync: str = "full") -> bool:
    """Whether the URL is certainly right, goes with `sync`, and its driver is installed. Imports nothing."""
    if not isinstance(url, str):
        return False  # a path, or a URL of SQLAlchemy
    if (sqlite := _SQLITE.fullmatch(url)) is not None:
        return _can_be_file(sqlite["file"])
    return sync == "full" and bool(_POSTGRES.fullmatch(url)) and _is_installed("asyncpg")


class DeferredStore:
    """The store that `make` returns, which `load` calls on its thread. `Store` describes the methods."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._store: Store | None = None
        _wait_at_forks()
        _deferred.add(self)

    @property
    def is_loaded(self) -> bool:
        """Whether the libraries are imported and the store is made."""
        return self._store is not None

    @property
    def loaded(self) -> Store | None:
        """The store that was made; None before."""
        return self._store

    def load(self) -> None:
        """Import the libraries and make the store, once. Raises what `make` raises."""
        with _importing:
            self._store = self._store or self._make()

    async def open(self) -> None:
        """As `Store.open`. Raises what `make` raises."""
        self.load()
        await self._opened().open()

    async def append(self, batch: Batch) -> None:
        """As `Store.append`."""
        await self._opened().append(batch)

    async def sweep(self, dead: Callable[[Producer], bool], now: datetime) -> int:
        """As `Store.sweep`."""
        return await self._opened().sweep(dead, now)

    async def close(self) -> None:
        """As `Store.close`."""
        if self._store is not None:
            await self._store.close()

    def failure(self, error: BaseException) -> Failure:
        """As `Store.failure`. Without its libraries nothing can be stored."""
        return "fatal" if self._store is None else self._store.failure(error)

    def leave_to_parent(self) -> None:
        """In a forked child: never use the parent's connection."""
        leave = getattr(self._store, "leave_to_parent", None)
        if leave is not None:
            leave()

    def _opened(self) -> Store:
        if self._store is None:
            raise RuntimeError("The store is used before it is open; call open() first")
        return self._store


def _can_be_file(name: str) -> bool:
    """Whether a file has this name, or can get it."""
    if os.path.exists(name):
        return os.path.isfile(name)
    return os.path.isdir(os.path.dirname(name) or ".") and not name.endswith("/")


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return find_spec(name) is not None


_deferred: Living[DeferredStore] = Living()


def _in_child() -> None:
    for store in _deferred.now():
        store.leave_to_parent()
    _importing.release()


@cache
def _wait_at_forks() -> None:
    """Let each fork wait for an import that is in progress.

    `fork_safe` closes the connections that are open when a process forks. It registers itself here, and not in the
    import that a fork may wait for, because then it would be too late for this fork. In a child the stores are reset
    before the recorders, because those are registered later.
    """
    import recorder.storage.fork_safe  # noqa: F401

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_in_child
        )


def store_of(url: str, config: Config, *, caller_waits: bool) -> Store:
    """The database of a URL.

    On a running event loop the writer's thread imports its libraries, unless only they know whether the URL is right.
    """
    if not caller_waits and is_plain(url, sync=config.sync):
        return DeferredStore(partial(_sql_store, url, config))
    return _sql_store(url, config)


def _sql_store(url: str, config: Config) -> Store:
    """The database of a URL. Its libraries are imported here, and not with the recorder, because they are large."""
    from recorder.storage.store import SqlStore

    return SqlStore(url, sync=config.sync)
