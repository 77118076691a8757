"""Messages, chunks, generations and results with LangChain's names and shapes, without importing LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.messages.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
