"""Calls a function when a process ends, also in worker processes that skip `atexit`.

Workers of `multiprocessing`, and of libraries derived from it, end with `os._exit`, which skips `atexit`. Each of these
libraries has its own list of functions to call before that, and clears the list when a worker starts.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

#: Package names of these libraries.
LIBRARIES = ("multiprocessing", "billiard", "multiprocess")
#: After pools (15) and queues (10) have stopped, and before a worker waits for its own children (-1).
_PRIORITY = 0

_known: set[str] = set()


def at_exit(function: Callable[[], None]) -> None:
    """Call the function when the process ends. Workers need `in_worker` as well."""
    atexit.register(function)


def in_worker(function: Callable[[], None]) -> None:
    """Call the function when this process ends, if it is a worker, and when workers that it starts end.

    Only libraries that are imported already are served, so callers call this again later. The function may be called
    more than once.
    """
    for name in LIBRARIES:
        util: Any = sys.modules.get(f"{name}.util")
        process: Any = sys.modules.get(f"{name}.process")
        if not hasattr(util, "Finalize") or not hasattr(process, "current_process"):
            continue  # the library is not imported
        if name not in _known:
            _known.add(name)
            util.register_after_fork(
                function, partial(_finalize, util)
            )  # for every worker, also spawned ones
        if type(process.current_process()).__name__ != "_MainProcess":
            _finalize(util, function)


def _finalize(util: Any, function: Callable[[], None]) -> None:
    util.Finalize(None, function, exitpriority=_PRIORITY)
