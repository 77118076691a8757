"""Callback handlers with LangChain's method names, and what calls them during a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.callbacks.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
