"""What a program does at its start under `recorder run`: it records its model calls, without a change to its code.

Nothing is imported for a program that imports no HTTP library, and nothing here ends a program or prints a traceback.
"""

from __future__ import annotations

import logging
from types import ModuleType

from recorder.core.import_hooks import when_imported

log = logging.getLogger("recorder")

#: The HTTP libraries; as in `process`, which is imported later.
_LIBRARIES = ("httpx", "httpx2", "aiohttp")
#: The hosts that are recorded and those that are not, separated by commas.
INCLUDE_HOSTS, EXCLUDE_HOSTS = "RECORDER_INCLUDE_HOSTS", "RECORDER_EXCLUDE_HOSTS"


def start() -> None:
    """Record all clients of this process as soon as it imports an HTTP library."""
    for name in _LIBRARIES:
        when_imported(name, _attach)


def _attach(_library: ModuleType) -> None:
    import os

    from recorder.instrumentation.attachment import attach

    included, excluded = (
        [each.strip() for each in os.environ.get(name, "").split(",") if each.strip()]
        for name in (INCLUDE_HOSTS, EXCLUDE_HOSTS)
    )
    attach(include_hosts=included, exclude_hosts=excluded)
