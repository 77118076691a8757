"""The name, the kind, the attributes and the status of the span of a run, by one version of the conventions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from recorder.core.json import dumps
from recorder.export.otel.conventions import PROVIDERS, PROVIDERS_BY_WIRE, Conventions
from recorder.export.otel.framework import SpanKind, Status, StatusCode
from recorder.export.otel.message_parts import MAX_CONTENT, input_of, output_of
from recorder.export.otel.request_parameters import parameters_of
from recorder.export.otel.span_texts import clean, short
from recorder.export.otel.traced_run import TracedRun
from recorder.storage.operations import RETRIEVAL, TOOL
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED
from recorder.wire.usage import read

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_INT = 2**63 - 1
#: The finish reason of a choice that ended early.
_EARLY = "error"


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond."""
    return (moment - _EPOCH) // _MICROSECOND * 1_000


def span_name(run: TracedRun) -> str:
    """`chat gpt-5.4`, `execute_tool search`, `chain agent`."""
    what = step_name(run) if run.is_step else run.request_model or run.response_model
    return (short(f"{run.operation} {what}" if what else run.operation) or "")[:200]


def span_kind(run: TracedRun) -> SpanKind:
    """Models run elsewhere, chains and tools in the application."""
    return SpanKind.INTERNAL if run.is_step else SpanKind.CLIENT


def step_name(run: TracedRun) -> str | None:
    """The name of a chain, a tool or a retriever."""
    return short(run.request.get("name"))


def provider_of(run: TracedRun) -> str:
    """The provider in the conventions' words."""
    if run.provider_name:
        return PROVIDERS.get(run.provider_name, short(run.provider_name) or "unknown")
    return PROVIDERS_BY_WIRE.get((run.wire or "").partition(".")[0], "unknown")


def start_attributes(run: TracedRun, conventions: Conventions) -> dict[str, Any]:
    """What is known when the run begins; samplers see it."""
    values: dict[str, Any] = {
        "operation": short(run.operation),
        "conversation": short(run.named_conversation),
        "run": run.id,
        "attempt": run.attempt if run.attempt > 1 else None,
    }
    if not run.is_step:
        values |= {"provider": provider_of(run), "request.model": short(run.request_model)}
        values |= parameters_of(run.request)
    elif run.operation == TOOL:
        values["tool.name"] = step_name(run)
    else:
        values["step"] = step_name(run)
    return conventions.named(values)


def end_attributes(run: TracedRun, conventions: Conventions) -> dict[str, Any]:
    """What is known when the run has ended."""
    values: dict[str, Any] = {"status": run.status, "error": error_type(run)}
    if not run.is_step:
        values |= {
            "request.stream": run.is_streamed or None,
            "response.id": short(run.response_id),
            "response.model": short(run.response_model),
            "response.finish_reasons": _finish_reasons(run),
            "response.first_chunk": first_chunk_seconds(run),
            **usage_of(run),
        }
    return conventions.named(values)


def content_attributes(run: TracedRun, conventions: Conventions) -> dict[str, Any]:
    """What was said. Of a tool: its arguments and its result; of a retriever: the query."""
    if run.operation == TOOL:
        values = {
            "content.tool_arguments": _json(run.request, "inputs"),
            "content.tool_result": _json(run.output, "output"),
        }
    elif run.operation == RETRIEVAL:
        values = {"content.query": _json(run.request, "inputs")}
    elif run.is_step:
        values = {}
    else:
        sent, instructions = input_of(run.messages, run.wire)
        reasons = _finish_reasons(run)
        output = output_of(run.replies, reasons[0] if reasons else None)
        values = {"content.input": sent, "content.instructions": instructions, "content.output": output}
    return conventions.named(values)


def error_type(run: TracedRun) -> str | None:
    """What went wrong; None if nothing did, or the application stopped the answer itself."""
    if run.status == ERROR:
        return short(run.error_type) or "_OTHER"
    return INTERRUPTED if run.status == INTERRUPTED else None


def span_status(run: TracedRun) -> Status:
    """An error for a run that failed or was cut off; unset for one that ended well, at a limit or by a cancel."""
    if run.status in (COMPLETE, INCOMPLETE, CANCELLED):
        return Status(StatusCode.UNSET)
    return Status(StatusCode.ERROR, short(run.error_message) or run.status)


def first_chunk_seconds(run: TracedRun) -> float | None:
    """The time from the start to the first token of an answer that was streamed."""
    if run.first_token_at is None or not run.is_streamed:
        return None
    return max(0.0, (run.first_token_at - run.started_at).total_seconds())


def usage_of(run: TracedRun) -> dict[str, int]:
    """The counts of the provider; an estimate is not exported as if it were one."""
    if run.usage_source != "provider":
        return {}
    counts: Mapping[str, Any] = read(run.usage, langchain=True) if run.usage else {}
    read_from, written = _details(counts, "input_token_details"), _details(counts, "output_token_details")
    found = {
        "usage.input": run.input_tokens,
        "usage.output": run.output_tokens,
        "usage.cache_read": read_from.get("cache_read") or None,
        "usage.cache_write": read_from.get("cache_creation") or None,
        "usage.reasoning": written.get("reasoning") or None,
    }
    return {key: count for key, count in found.items() if type(count) is int and 0 <= count <= _MAX_INT}


def _details(counts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = counts.get(key)
    return found if isinstance(found, Mapping) else {}


def _finish_reasons(run: TracedRun) -> list[str] | None:
    if run.finish_reason:
        return [short(run.finish_reason) or ""]
    return [_EARLY] if run.status in (ERROR, CANCELLED, INTERRUPTED) else None


def _json(source: Mapping[str, Any], key: str) -> str | None:
    found = source.get(key)
    if found is None:
        return None
    text = clean(found if isinstance(found, str) else dumps(found))
    return text if len(text) <= MAX_CONTENT else text[: MAX_CONTENT - 3] + "..."
