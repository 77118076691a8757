"""What recorder uses of OpenTelemetry. An environment without it gets one clear error."""

from __future__ import annotations

from recorder.core.installation import INSTALL_OPENTELEMETRY
from recorder.errors import ConfigError

try:
    import opentelemetry.exporter.otlp.proto.http
    import opentelemetry.sdk.trace  # noqa: F401  # both parts of the extra are looked for together
except ImportError as error:
    raise ConfigError(
        f"An export to OpenTelemetry needs its SDK, which is not installed; run: {INSTALL_OPENTELEMETRY}"
    ) from error

from opentelemetry import metrics as metrics
from opentelemetry import trace as trace
from opentelemetry._logs import LogRecord as LogRecord
from opentelemetry._logs import get_logger_provider as get_logger_provider
from opentelemetry.context import Context as Context
from opentelemetry.sdk.trace.id_generator import IdGenerator as IdGenerator
from opentelemetry.trace import NonRecordingSpan as NonRecordingSpan
from opentelemetry.trace import Span as Span
from opentelemetry.trace import SpanContext as SpanContext
from opentelemetry.trace import SpanKind as SpanKind
from opentelemetry.trace import Status as Status
from opentelemetry.trace import StatusCode as StatusCode
from opentelemetry.trace import TraceFlags as TraceFlags
from opentelemetry.trace import TraceState as TraceState

#: The name of the instrumentation scope of everything that is exported.
SCOPE = "recorder"


def context_of(parent: SpanContext | None) -> Context:
    """A context in which this span is the current one; an empty one without a span."""
    if parent is None:
        return Context()
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())
