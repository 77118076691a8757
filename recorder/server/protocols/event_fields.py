"""The fields of the events of a stream, which all protocols of recorder's own share."""

from __future__ import annotations

from typing import Any

from recorder.replay.playback import EndStep, GapStep
from recorder.wire.deltas import TEXT
from recorder.wire.usage import ESTIMATED_USAGE


def token_fields(seq: int, item: list[Any]) -> dict[str, Any]:
    """One token: its number, its time after the request in microseconds, and what it is a piece of."""
    at_us, text, *rest = item
    kind, idx = rest or (TEXT, "0")
    return {"seq": seq, "at_us": at_us, "kind": kind, "idx": idx, "text": text}


def gap_fields(gap: GapStep) -> dict[str, Any]:
    """Missing tokens: the number of the first one, how many, and why."""
    return {"seq": gap.seq, "count": gap.count, "reason": gap.reason}


def end_fields(end: EndStep) -> dict[str, Any]:
    """The end of a run. They come from its row alone, so they are the same wherever a reader joined."""
    run = end.run
    # An estimate comes some time after the end, so readers who join later would get another one.
    is_reported = run.usage_source != ESTIMATED_USAGE
    about = {
        "finish_reason": run.finish_reason,
        "error_type": run.error_type,
        "error": run.error_message,
        "input_tokens": run.input_tokens if is_reported else None,
        "output_tokens": run.output_tokens if is_reported else None,
    }
    return {"status": run.status, **{name: value for name, value in about.items() if value is not None}}
