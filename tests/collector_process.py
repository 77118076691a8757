"""The process of a collector of OpenTelemetry: it takes OTLP over HTTP, and tells what it has received.

`python -m tests.collector_process` prints its port. A request with the path `/behaviour/NAME` changes how it answers:
"accept", "refuse" (500), "hang" (it reads the request and never answers), or "new" (it accepts, and forgets what it
received).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    behaviour = "accept"
    received: list[dict[str, Any]] = []  # noqa: RUF012  # of the process, which has one collector
    closing = threading.Event()

    def do_POST(self) -> None:
        """A page of spans, metrics or events."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.behaviour == "hang":
            self.closing.wait()
            return
        if self.behaviour == "accept":
            self.received.extend(_decoded(self.path, body))
        self._answer(200 if self.behaviour == "accept" else 500, b"")

    def do_GET(self) -> None:
        """What was received; or another behaviour."""
        if self.path.startswith("/behaviour/"):
            type(self).behaviour = self.path.removeprefix("/behaviour/")
        if self.path == "/behaviour/new":
            type(self).behaviour = "accept"
            self.received.clear()
        self._answer(200, json.dumps(self.received).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def _decoded(path: str, body: bytes) -> Iterator[dict[str, Any]]:
    if path == "/v1/traces":
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in group.scope_spans:
                yield from (_span(span, scope) for span in scope.spans)
    elif path == "/v1/logs":
        for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
            yield from (_event(record) for scope in logs.scope_logs for record in scope.log_records)
    elif path == "/v1/metrics":
        for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for each in (metric for scope in metrics.scope_metrics for metric in scope.metrics):
                yield from _points(each)


def _span(span: Any, scope: Any) -> dict[str, Any]:
    return {
        "signal": "span",
        "scope": scope.scope.name,
        "schema": scope.schema_url,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex() or None,
        "name": span.name,
        "kind": {1: "internal", 3: "client"}.get(span.kind, str(span.kind)),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "status": {0: "unset", 1: "ok", 2: "error"}[span.status.code],
        "message": span.status.message,
        "attributes": _attributes(span.attributes),
    }


def _event(record: Any) -> dict[str, Any]:
    return {
        "signal": "event",
        "name": record.event_name,
        "trace": record.trace_id.hex(),
        "span": record.span_id.hex(),
        "time": record.time_unix_nano,
        "attributes": _attributes(record.attributes),
    }


def _points(metric: Any) -> Iterator[dict[str, Any]]:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points:
        found = {"signal": "metric", "name": metric.name, "unit": metric.unit}
        found["attributes"] = _attributes(point.attributes)
        if kind == "histogram":
            found |= {"count": point.count, "sum": point.sum, "bounds": list(point.explicit_bounds)}
        else:
            found["value"] = point.as_int
        yield found


def _attributes(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def main() -> None:
    """Serve until the process is ended."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
