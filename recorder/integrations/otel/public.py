"""The public names of `recorder.integrations.otel`, each with its module."""

from recorder.export.otel.resend import Resent as Resent
from recorder.export.otel.resend import resend as resend
from recorder.integrations.otel.exporter import OpenTelemetryExporter as OpenTelemetryExporter
from recorder.integrations.otel.stats import ExportStats as ExportStats
