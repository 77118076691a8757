"""Refuses the parts of gevent's monkey patch that recorder cannot run with."""

from __future__ import annotations

import sys
from typing import Any

from recorder.errors import ConfigError

#: Modules that threads and event loops need -> their parameters of `gevent.monkey.patch_all`.
_NEEDED = {"threading": "thread", "queue": "queue", "select": "select"}
_REMEDY = "gevent.monkey.patch_all(thread=False, queue=False, select=False)"


def refuse_greenlets() -> None:
    """Raise `ConfigError` if gevent has replaced threads of the operating system by greenlets.

    The writer and the reader each run an event loop on their own thread. As a greenlet, that loop would run on the
    application's thread, and `asyncio.run` would fail in the application.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return
    patched = [name for module, name in _NEEDED.items() if monkey.is_module_patched(module)]
    if patched:
        raise ConfigError(
            f"gevent has patched {', '.join(patched)}, but recorder runs event loops on threads and needs Python's own "
            f"modules. Write: {_REMEDY}"
        )
