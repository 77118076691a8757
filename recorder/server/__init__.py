"""Recordings over HTTP and WebSocket, live and finished alike; docs/serve.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recorder.core.installation import INSTALL_SERVER
from recorder.core.lazy_imports import public_names
from recorder.errors import MissingExtra

if TYPE_CHECKING:
    from recorder.server.public import *
else:
    _imported, __dir__, __all__ = public_names(__name__)

    def __getattr__(name: str) -> Any:
        try:
            return _imported(name)
        except ModuleNotFoundError as error:
            raise missing(error) from error


def missing(error: ModuleNotFoundError) -> ImportError:
    """The error for a package that is not installed, with the command that installs it."""
    if (error.name or "").partition(".")[0] == "recorder":
        return error
    return MissingExtra(f"Serving needs {error.name}, which is not installed; run: {INSTALL_SERVER}")
