"""Records what language models say, token by token, into your own SQL database, while they say it.

Importing this loads nothing heavy: names are resolved when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recorder.core import logs

if TYPE_CHECKING:
    from recorder.config import Config
    from recorder.errors import (
        Closed,
        ConfigError,
        MissingExtra,
        NotFound,
        RecorderError,
        SchemaError,
        StoreError,
    )
    from recorder.history import ChatHistoryCallback
    from recorder.recording.recorder import Stats

logs.install()

__version__ = "0.1.0"

_HOMES = {
    "ChatHistoryCallback": "recorder.history",
    "Closed": "recorder.errors",
    "Config": "recorder.config",
    "ConfigError": "recorder.errors",
    "MissingExtra": "recorder.errors",
    "NotFound": "recorder.errors",
    "RecorderError": "recorder.errors",
    "SchemaError": "recorder.errors",
    "Stats": "recorder.recording.recorder",
    "StoreError": "recorder.errors",
}

__all__ = [
    "ChatHistoryCallback",
    "Closed",
    "Config",
    "ConfigError",
    "MissingExtra",
    "NotFound",
    "RecorderError",
    "SchemaError",
    "Stats",
    "StoreError",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'recorder' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
