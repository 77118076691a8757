"""Each run becomes a span of OpenTelemetry, here printed by its console exporter, in the span of the application."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from recorder import ChatHistoryCallback
from recorder.integrations.otel import OpenTelemetryExporter
from recorder.models import ChatOpenAI

tracers = TracerProvider()
tracers.add_span_processor(
    BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n"))
)
with (
    ChatHistoryCallback("sqlite:///chat_history.db") as history,
    OpenTelemetryExporter(history, tracer_provider=tracers),
    tracers.get_tracer("my application").start_as_current_span("request"),
):
    chat = ChatOpenAI(model="gpt-5.4-mini", callbacks=[history])
    for _chunk in chat.stream("Write me a song about sparkling water."):
        pass
