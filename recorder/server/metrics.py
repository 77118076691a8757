"""`GET /metrics`: the state of one server process for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from recorder.recording.stats import Stats
from recorder.server.chat_runs import ChatRuns
from recorder.server.gate import caller_of
from recorder.server.problem import NO_SNIFFING, ProblemError, documented
from recorder.server.request_counts import AnswerKind, RequestCounts

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The metrics in Prometheus's text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
    **documented(400, 401, 403, 503),
}
#: Fields of `Stats` -> what they count, as counters and as gauges.
_COUNTERS = {
    "accepted": "Tokens that were recorded.",
    "committed": "Tokens that are stored.",
    "dropped": "Tokens that are not stored, because the queue was full or the database was away too long.",
    "quarantined": "Tokens that can never be stored.",
    "commits": "Transactions that stored something.",
    "lost_runs": "Runs of which nothing is stored.",
    "lost_messages": "Messages that are not stored.",
}
_GAUGES = {
    "queued": "Tokens that are not stored yet.",
    "queued_bytes": "Bytes of the queue.",
    "open_runs": "Runs that have started and not ended.",
    "lag": "Seconds that the oldest token in the queue has been waiting.",
    "healthy": "Whether the last use of the database succeeded, and no commit is late.",
}


class ServerMetrics:
    """The metrics of one application, as a collector of `prometheus-client`."""

    def __init__(self, chats: ChatRuns, counts: RequestCounts) -> None:
        self._chats, self._counts = chats, counts
        counts.registry.register(self)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._counts.registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are not compared when the collector is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics, for `prometheus-client`."""
        counts, database = self._counts, self._chats.database
        answers = CounterMetricFamily(
            "recorder_http_answers", "Answers by route and status.", labels=AnswerKind._fields
        )
        for kind, number in list(counts.answers.items()):
            answers.add_metric(kind, number)
        yield answers
        yield CounterMetricFamily(
            "recorder_http_sent_bytes", "Bytes of bodies and messages.", counts.sent_bytes
        )
        yield _gauge("readers", "Readers of streams.", database.readers)
        yield _gauge(
            "slowest_reader_seconds", "Seconds that a reader has not accepted a piece.", database.stall
        )
        yield _gauge(
            "served_runs", "Runs that clients have started and that are under way.", self._chats.under_way
        )
        if (history := database.history) is not None:
            yield from _recording(history.stats())


def metrics_routes(metrics: ServerMetrics) -> APIRouter:
    """The route that Prometheus reads."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", responses=_RESPONSES)
    async def read_metrics(request: Request) -> Response:
        """Readers, runs, answers, bytes and the queue of this process; with tokens, for those of all users only."""
        if caller_of(request.scope).user_id is not None:
            raise ProblemError(403, "The metrics are of all users; send a token that reads everything")
        return Response(metrics.text(), 200, {**NO_SNIFFING, "content-type": CONTENT_TYPE_LATEST})

    return router


def _recording(stats: Stats) -> Iterator[Metric]:
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(f"recorder_recording_{name}", text, getattr(stats, name))
    for name, text in _GAUGES.items():
        yield _gauge(f"recording_{name}", text, float(getattr(stats, name)))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"recorder_{name}", text, value)
