"""A bounded queue between the thread that commits and a thread that exports. Putting never waits for the export."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("recorder")

#: The thread ends when nothing came for so long, and the next item starts another one (seconds).
_IDLE = 60.0
#: The bytes that an item counts beside its own.
_ITEM_BYTES = 500


class CommitQueue(Generic[T]):
    """Calls `work` with one item after the other, on a daemon thread that it starts when it is needed."""

    def __init__(self, work: Callable[[T], None], max_bytes: int, name: str) -> None:
        self._work, self._max_bytes, self._name = work, max_bytes, name
        self.reset()

    def reset(self) -> None:
        """Drop everything, in a forked child. The parent's thread may have held the lock, so there is a new one."""
        self._changed = threading.Condition()
        #: How many calls of `work` raised.
        self.errors = 0
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        #: How many items were put, and how many of them are done.
        self._put = self._done = 0
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many items are not done."""
        return self._put - self._done

    def put(self, item: T, size: int) -> bool:
        """Append an item. False if there is no room for it."""
        with self._changed:
            if self._items and self._bytes + size > self._max_bytes:
                return False
            self._items.append((item, size + _ITEM_BYTES))
            self._bytes += size + _ITEM_BYTES
            self._put += 1
            self._start()
            self._changed.notify_all()
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until what was put before is done, at most `timeout` seconds. Whether it is."""
        with self._changed:
            wanted = self._put
            if self._items:
                self._start()
            # A thread could not be started, because the interpreter ends: the caller does the work.
            is_alone = self._thread is None
        while is_alone and self._items:
            self._step()
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= wanted, timeout)

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started any more; `flush` does the work
            self._thread = None
        else:
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._items, _IDLE):
                    self._thread = None
                    return
            self._step()

    def _step(self) -> None:
        """Do the first item."""
        try:
            item, size = self._items.popleft()
        except IndexError:  # another thread that flushes has done it
            return
        try:
            self._work(item)
        except Exception:
            self.errors += 1
            if self.errors == 1:
                log.exception("An export to OpenTelemetry failed; recording and the export go on")
        finally:
            with self._changed:
                self._bytes -= size
                self._done += 1
                self._changed.notify_all()
