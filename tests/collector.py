"""A collector of OpenTelemetry in another process, and the providers of an application that sends to it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.oracle import ROOT

#: Milliseconds. Longer than a test, so that only a flush sends.
_NEVER = 600_000


@dataclass(frozen=True, slots=True)
class Collector:
    """The collector, as a test sees it."""

    url: str

    def behave(self, name: str) -> None:
        """Answer in this way from now on."""
        self._get(f"/behaviour/{name}")

    def received(self, signal: str, name: str | None = None) -> list[dict[str, Any]]:
        """Return what was received: "span", "event" or "metric", by its name."""
        found = json.loads(self._get("/"))
        return [each for each in found if each["signal"] == signal and name in (None, each["name"])]

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return bytes(answer.read())


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector in another process."""
    command = [sys.executable, "-m", "tests.collector_process"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Collector(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The providers of an application that sends to the collector."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider

    def providers(self) -> dict[str, Any]:
        """Return the arguments of an exporter."""
        return {name: getattr(self, name) for name in self.__slots__}


@contextmanager
def telemetry(url: str, timeout: float = 10) -> Iterator[Telemetry]:
    """Make providers that send to a collector with this URL; they are shut down afterwards."""
    tracers = TracerProvider(shutdown_on_exit=False)
    spans = OTLPSpanExporter(f"{url}/v1/traces", timeout=timeout)
    tracers.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=_NEVER))
    points = OTLPMetricExporter(f"{url}/v1/metrics", timeout=timeout)
    reader = PeriodicExportingMetricReader(points, export_interval_millis=math.inf)
    meters = MeterProvider([reader], shutdown_on_exit=False)
    loggers = LoggerProvider(shutdown_on_exit=False)
    events = OTLPLogExporter(f"{url}/v1/logs", timeout=timeout)
    loggers.add_log_record_processor(BatchLogRecordProcessor(events, schedule_delay_millis=_NEVER))
    try:
        yield Telemetry(tracers, meters, loggers)
    finally:
        for provider in (tracers, meters, loggers):
            provider.shutdown()


@pytest.fixture(scope="session")
def collecting_process() -> Iterator[Collector]:
    """Run one collector for all tests of a process."""
    with collecting() as collector:
        yield collector


@pytest.fixture
def collector(collecting_process: Collector) -> Collector:
    """Return a collector that accepts everything and has received nothing."""
    collecting_process.behave("new")
    return collecting_process
