"""Imports on a thread of recorder's own, while the application may fork.

A fork waits for such an import. Otherwise the child would have half of a module, and the lock of a thread that is gone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Held while a thread imports, and by a thread that forks.
_importing = threading.RLock()


def _release() -> None:
    with suppress(RuntimeError):  # the fork had begun when this module was imported
        _importing.release()


# Here and not with the first late import: a fork may be in progress then, which would not have taken the lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_importing.acquire, after_in_parent=_release, after_in_child=_release)


@contextmanager
def late_imports() -> Iterator[None]:
    """Inside, modules are imported, and no other thread forks."""
    with _importing:
        yield
