"""Exports what is recorded to OpenTelemetry: spans, metrics and events with the names of its GenAI conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.core.lazy_imports import public_names

if TYPE_CHECKING:
    from recorder.integrations.otel.public import *
else:
    __getattr__, __dir__, __all__ = public_names(__name__)
