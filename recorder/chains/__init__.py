"""Prompts, parsers and chains with the names and arguments of LangChain's, over recorder's models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.chains.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
