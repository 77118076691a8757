"""gevent's monkey patch: the parts of it that recorder cannot run beside."""

from __future__ import annotations

import sys
from typing import Any

from recorder.errors import ConfigError

#: Modules that threads and event loops stand on, and their names in `patch_all`.
_NEEDED = {"threading": "thread", "queue": "queue", "select": "select"}
_REMEDY = "gevent.monkey.patch_all(thread=False, queue=False, select=False)"


def refuse_greenlets() -> None:
    """Raise `ConfigError` where gevent has made greenlets of what must be threads of the operating system.

    What records and what reads runs an event loop on a thread of its own. As a greenlet of the application's thread,
    that loop would be the running one there, and `asyncio.run` would fail in the application.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return
    patched = [name for module, name in _NEEDED.items() if monkey.is_module_patched(module)]
    if patched:
        raise ConfigError(
            f"gevent has patched {', '.join(patched)}, and recorder needs Python's own, for it runs event loops on "
            f"threads. Write: {_REMEDY}"
        )
