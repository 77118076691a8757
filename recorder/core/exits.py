"""What is done when a process ends, whether it calls `atexit` or not.

Workers of `multiprocessing`, and of the libraries made from it, end by `os._exit`, which skips `atexit`. Each of these
libraries has a list of its own of what to call before, which it empties when a worker begins.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

#: The libraries, by the names of their packages.
LIBRARIES = ("multiprocessing", "billiard", "multiprocess")
#: After pools and queues have stopped feeding (15 and 10), before a worker waits for its own children (-1).
_PRIORITY = 0

_known: set[str] = set()


def at_exit(function: Callable[[], None]) -> None:
    """Call a function of a module when the process ends. Workers need `in_worker` as well."""
    atexit.register(function)


def in_worker(function: Callable[[], None]) -> None:
    """Call the function when this process ends, and when its workers do, if it knows such a library by now.

    To be called again whenever there is something new to end; a function may be called more than once.
    """
    for name in LIBRARIES:
        util: Any = sys.modules.get(f"{name}.util")
        process: Any = sys.modules.get(f"{name}.process")
        if not hasattr(util, "Finalize") or not hasattr(process, "current_process"):
            continue  # not loaded, or not yet
        if name not in _known:
            _known.add(name)
            util.register_after_fork(function, partial(_finalize, util))  # in any worker, spawned ones too
        if type(process.current_process()).__name__ != "_MainProcess":
            _finalize(util, function)


def _finalize(util: Any, function: Callable[[], None]) -> None:
    util.Finalize(None, function, exitpriority=_PRIORITY)
