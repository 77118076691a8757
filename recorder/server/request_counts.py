"""What the server counts: answers by route and status, bytes, and how long an answer takes to begin."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram

#: The methods that are told apart; others are counted together.
_METHODS = frozenset(("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "WEBSOCKET"))
#: Seconds until an answer begins.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class AnswerKind(NamedTuple):
    """The labels of an answer. The route is its template, so that their number is limited."""

    method: str
    route: str
    status: str


class RequestCounts:
    """The counts of one application. Its methods are called on its event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.answers: Counter[AnswerKind] = Counter()
        self.sent_bytes = 0
        self._begins = Histogram(
            "recorder_http_answer_begins_seconds",
            "Time from a request to the beginning of its answer.",
            ["route"],
            registry=self.registry,
            buckets=_BUCKETS,
        )

    def count(self, method: str, route: str, status: int) -> None:
        """One answer has ended."""
        self.answers[AnswerKind(method if method in _METHODS else "other", route, str(status))] += 1

    def begins(self, route: str, seconds: float) -> None:
        """An answer begins."""
        self._begins.labels(route).observe(seconds)
