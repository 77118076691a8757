"""Ids are computed from the id of a run, and the application's span is kept in the metadata."""

from __future__ import annotations

import uuid

import pytest
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from recorder.export.otel.span_ids import application_span, as_metadata, span_id_of, span_of, trace_id_of


def test_a_run_has_the_same_ids_each_time() -> None:
    """Others have others."""
    ids = [str(uuid.UUID(int=number)) for number in range(1_000)]
    assert [trace_id_of(id) for id in ids] == [trace_id_of(id) for id in ids]
    assert len({span_id_of(id) for id in ids} | {trace_id_of(id) for id in ids}) == 2_000
    assert all(span_of(id).is_valid for id in ids)


def test_a_span_goes_into_the_metadata_and_back() -> None:
    """With its flags and its state."""
    span = SpanContext(7, 9, False, TraceFlags(1), TraceState([("vendor", "x")]))
    assert as_metadata(span) == {"traceparent": f"00-{7:032x}-{9:016x}-01", "tracestate": "vendor=x"}
    assert application_span(as_metadata(span)) == span


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "00-1-2-01",
        f"00-{0:032x}-{9:016x}-01",
        f"00-{7:032x}-{0:016x}-01",
        f"01-{7:032x}-{9:016x}-01x",
    ],
    ids=["none", "number", "empty", "short", "no trace", "no span", "long"],
)
def test_what_is_no_span_is_none(value: object) -> None:
    """Metadata come from applications."""
    assert application_span({"traceparent": value}) is None
