"""Recordings over HTTP and WebSocket, live and finished alike; docs/serve.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.server.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
