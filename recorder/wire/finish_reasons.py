"""The meaning of finish reasons, for all providers. Only a reason that is known to be good makes an answer complete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

Meaning = Literal["good", "limit", "failure", "unknown"]

#: From the best to the worst.
_ORDER: tuple[Meaning, ...] = ("good", "limit", "unknown", "failure")
#: The model ended the answer by itself.
_GOOD = frozenset(
    ("stop", "end_turn", "stop_sequence", "stop_str", "tool_use", "tool_call", "tool_calls", "function_call",
     "function_calls", "pause_turn", "compaction", "eos", "eos_token", "eot", "end", "end_of_text", "endoftext",
     "end_of_turn", "complete", "completed", "done", "finish", "finished", "success", "succeeded", "load", "unload")
)  # fmt: skip
#: A limit or a filter cut the answer off.
_LIMITS = frozenset(
    ("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit", "time_limit",
     "context_length", "model_context_window_exceeded", "incomplete", "content_filter", "content_filtered",
     "guardrail_intervened", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii",
     "image_safety", "language", "sensitive", "max_messages", "max_tool_calls", "steered", "continuation",
     "too_many_tool_calls", "image_prohibited_content", "image_recitation", "jailbreak", "model_armor", "escalation",
     "blocked")
)  # fmt: skip
#: The provider failed.
_FAILURE = re.compile(
    r"(?:.*_)?(?:error|errors|exception|failure|failed|fail)(?:_.*)?|insufficient_system_resource"
)
#: No reason; some providers write null as a word.
_NONE = frozenset(("", "null", "none"))
_BETWEEN_WORDS = re.compile(r"[\s-]+|(?<=[a-z])(?=[A-Z])")


def is_reason(reason: object) -> bool:
    """Whether a finish reason is present; null written as a word is none."""
    return reason is not None and reason is not False and _word(str(reason)) not in _NONE


def meaning_of(reason: str) -> Meaning:
    """The meaning of a finish reason; unknown for a reason outside of the lists (`abort`, `cancelled`, `other`)."""
    word = _word(reason)
    if word in _GOOD:
        return "good"
    if word in _LIMITS:
        return "limit"
    return "failure" if _FAILURE.fullmatch(word) else "unknown"


def worst_of(reasons: Iterable[object]) -> tuple[Meaning, str | None]:
    """The worst meaning among the reasons of several choices, and the reason that has it; good if there are none."""
    worst: Meaning = "good"
    its_reason: str | None = None
    for reason in map(str, reasons):
        meaning = meaning_of(reason)
        if its_reason is None or _ORDER.index(meaning) > _ORDER.index(worst):
            worst, its_reason = meaning, reason
    return worst, its_reason


@lru_cache(maxsize=256)  # called at each end of a run, with few different reasons
def _word(reason: str) -> str:
    """Lower case with underscores: `MAX_TOKENS`, `max-tokens` and `maxTokens` are one word.

    A word that is written twice counts once: adding two of LangChain's chunks with `stop` gives `stopstop`.
    """
    word = _BETWEEN_WORDS.sub("_", reason.strip()[:200]).lower().removeprefix("finish_reason_")
    half = word[: len(word) // 2]
    return half if half and word == half * 2 else word
