"""Decides how a run ended: its status, and the provider's facts, from the result or the error that a model reports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from recorder.core.clock import now
from recorder.core.escaping import escape_json
from recorder.messages import LLMResult, from_any
from recorder.messages.identity import has_calls
from recorder.recording.message_copies import message_from
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED, RunEnd
from recorder.storage.storable_values import mapping_of, text_of
from recorder.wire.finish_reasons import is_reason, worst_of
from recorder.wire.usage import found_in, is_counted, read

log = logging.getLogger("recorder")

#: Meaning of a finish reason -> status of the run.
_STATUSES = {"good": COMPLETE, "limit": INCOMPLETE, "failure": INTERRUPTED, "unknown": INTERRUPTED}
#: Keys of the finish reason in the metadata of a choice; Ollama's and Bedrock's models of LangChain use their own.
_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_CANCELS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)


def end_of_result(response: Any) -> RunEnd:
    """The end of a run from its `LLMResult`. If the result cannot be read, an end with the status only."""
    try:
        end = _end_of(response)
        if mapping_of(getattr(response, "llm_output", None)).get("interrupted"):
            end.status = INTERRUPTED
    except Exception as error:
        log.warning("Cannot read the result of a run; only its end is stored: %r", error)
        return RunEnd(COMPLETE, now())
    return end


def end_of_error(error: BaseException, response: LLMResult | None = None) -> RunEnd:
    """The end of a run that failed or was cancelled. `response` is what had arrived before."""
    end = end_of_result(response) if response is not None else RunEnd(ERROR, now())
    end.status, end.error_message = CANCELLED if isinstance(error, _CANCELS) else ERROR, None
    if end.status == ERROR:
        end.error_type, end.error_message = _name_of(type(error)), text_of(error)
    return end


def _end_of(response: LLMResult) -> RunEnd:
    """The end of a run from its result. The worst finish reason of its choices decides the status."""
    replies: list[Any] = []
    infos: list[Mapping[str, Any]] = []
    reasons: list[str | None] = []
    for choice in _choices_of(response):
        reply = getattr(choice, "message", None) or from_any(("assistant", choice.text))
        metadata = mapping_of(getattr(reply, "response_metadata", None))
        info = {**metadata, **mapping_of(choice.generation_info)}
        replies.append(reply)
        infos.append(info)
        reasons.append(text_of(_reason_of(info)))
    first, output = infos[0] if infos else {}, mapping_of(response.llm_output)
    usage, raw = _usage_of(replies, output, first)
    meaning, reason = worst_of(filter(is_reason, reasons))
    status = _STATUSES[meaning]
    return RunEnd(
        status=status,
        ended_at=now(),
        error_message=text_of(f"the answer ended with {reason!r}") if status == INTERRUPTED else None,
        finish_reason=reasons[0] if reasons else None,
        response_id=text_of(first.get("id") or output.get("id")),
        response_model=text_of(first.get("model_name") or first.get("model") or output.get("model_name")),
        input_tokens=usage and usage.get("input_tokens"),
        output_tokens=usage and usage.get("output_tokens"),
        total_tokens=usage and usage.get("total_tokens"),
        usage=escape_json(raw) if raw else None,
        usage_source="provider" if raw and is_counted(raw) else "none",
        service_tier=text_of(first.get("service_tier")),
        replies=[message_from(reply) for reply in replies if _has_content(reply)],
    )


def _choices_of(response: Any) -> list[Any]:
    """The choices of the first prompt. Empty if the response is not an `LLMResult`."""
    generations = getattr(response, "generations", None)
    first = generations[0] if isinstance(generations, (list, tuple)) and generations else ()
    return list(first) if isinstance(first, (list, tuple)) else []


def _usage_of(replies: list[Any], output: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[Any, Any]:
    """The usage in the names of LangChain's `usage_metadata`, and as the provider sent it. Each is empty or None
    where there is none."""
    usage: Any = None
    for reply in replies:
        if usage := mapping_of(getattr(reply, "usage_metadata", None)):
            break
    raw = mapping_of(output.get("token_usage")) or usage or found_in(output) or found_in(first)
    if not usage and raw and is_counted(raw):  # a completion, which has no message with usage_metadata
        usage = read(raw)
    return usage or None, raw


def _reason_of(info: Mapping[str, Any]) -> Any:
    for key in _REASONS:
        if reason := info.get(key):
            return reason
    return None


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _has_content(reply: Any) -> bool:
    return bool(reply.content or has_calls(reply) or reply.additional_kwargs)
