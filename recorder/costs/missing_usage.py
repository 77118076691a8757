"""Which runs have no usage, or only a part of it, and are estimated."""

from __future__ import annotations

from typing import Any

from recorder.storage.rows import COMPLETE, INCOMPLETE
from recorder.wire.recorded_run import ANTHROPIC


def is_partial(wire: str | None, end: Any) -> bool:
    """Whether the usage is that of the start of an answer that was cut. `end` is a `RunEnd`, or a row of `runs`.

    Anthropic counts the input at the start of an answer, and the output at its end.
    """
    return bool(wire == ANTHROPIC and end.usage_source == "provider" and end.finish_reason is None)


def needs_estimate(wire: str | None, end: Any) -> bool:
    """Whether the provider did something that it charges for, and did not report all of its usage.

    A request that failed before anything arrived is not charged.
    """
    is_missing = end.usage_source == "none" or is_partial(wire, end)
    return is_missing and (end.status in (COMPLETE, INCOMPLETE) or end.first_token_at is not None)
