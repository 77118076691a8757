"""Ids of traces and spans that are computed from the id of a run, so that every export gives a run the same ids."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from recorder.export.otel.framework import IdGenerator, SpanContext, TraceFlags, TraceState

#: Keys in the metadata of a run: the span of the application in which it began, as W3C's headers name it.
#: https://www.w3.org/TR/trace-context/
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_MAX_TRACESTATE = 512
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def trace_id_of(run_id: str) -> int:
    """The trace of a run without a parent. A hash, because samplers need all bits to be random."""
    return _hashed("trace", run_id, 16)


def span_id_of(run_id: str) -> int:
    """The span of a run."""
    return _hashed("span", run_id, 8)


def _hashed(kind: str, run_id: str, size: int) -> int:
    digest = sha256(f"recorder {kind} {run_id}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:size]) or 1  # 0 is no id


def span_of(run_id: str, trace_id: int | None = None) -> SpanContext:
    """The span of a run, which may be in the trace of another one."""
    trace = trace_id_of(run_id) if trace_id is None else trace_id
    return SpanContext(trace, span_id_of(run_id), False, TraceFlags(TraceFlags.SAMPLED))


def as_metadata(span: SpanContext) -> dict[str, str]:
    """What the metadata of a run say about the application's span."""
    found = {TRACEPARENT: f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags) & 255:02x}"}
    if span.trace_state and len(state := span.trace_state.to_header()) <= _MAX_TRACESTATE:
        found[TRACESTATE] = state
    return found


def application_span(metadata: Mapping[str, Any]) -> SpanContext | None:
    """The application's span in the metadata of a run; None without a valid one."""
    given = metadata.get(TRACEPARENT)
    found = _TRACEPARENT.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        return None
    state = metadata.get(TRACESTATE)
    states = TraceState.from_header([state[:_MAX_TRACESTATE]]) if isinstance(state, str) else None
    span = SpanContext(int(found[1], 16), int(found[2], 16), False, TraceFlags(int(found[3], 16)), states)
    return span if span.is_valid else None


class RunIds(IdGenerator):
    """Gives the next span of this thread the ids of a run."""

    def __init__(self) -> None:
        self._next = threading.local()

    def use(self, run_id: str) -> None:
        """The next span is that of this run."""
        self._next.run_id = run_id

    def generate_span_id(self) -> int:
        """The id of the run's span."""
        return span_id_of(self._next.run_id)

    def generate_trace_id(self) -> int:
        """The id of the run's trace, if it has no parent."""
        return trace_id_of(self._next.run_id)

    def is_trace_id_random(self) -> bool:
        """A hash is as good as chance for a sampler."""
        return True


#: Of all exporters of the process: the tracers of one provider are shared.
RUN_IDS = RunIds()
