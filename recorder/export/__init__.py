"""Recordings are written to portable files and read into another database, byte for byte; docs/export.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.export.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
