"""Decodes OpenAI's legacy completions, and the dialects of compatible providers, to deltas.

A streamed event and a complete answer have the same shape, `choices[].text`. Dialects: reasoning beside the text
(OpenRouter, DeepSeek), log probabilities in the shape of chat (vLLM), a chat delta with the same text (Together).
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import Any

from recorder.wire.deltas import REASONING, TEXT, Delta
from recorder.wire.openai.events import FILTER_RESULTS, PLAIN_KEYS, OpenAIEvents

WIRE = "openai.completions"

#: Keys of a choice that are read elsewhere, or that have nothing to do with the answer.
_CHOICE_KEYS = frozenset(
    ("index", "text", "finish_reason", "native_finish_reason", "logprobs", "usage", "delta", "token_id", "token_ids",
     "prompt_token_ids", FILTER_RESULTS)
)  # fmt: skip
_REASONING = ("reasoning_content", "reasoning")


class OpenAICompletions(OpenAIEvents):
    """Translates the frames of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire = WIRE

    @staticmethod
    def _is_unstreamed(choice: dict[str, Any]) -> bool:
        return "text" in choice

    @staticmethod
    def _plain_text(event: Any) -> str | None:
        try:
            (choice,) = event["choices"]
            text = choice["text"]
            if (
                type(text) is str
                and text
                and choice["index"] == 0
                and not choice.get("finish_reason")
                and not choice.get("logprobs")
                and FILTER_RESULTS not in choice
                and not event.get("usage")
                and _CHOICE_KEYS.issuperset(choice)
                and PLAIN_KEYS.issuperset(event)
            ):
                return text
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        return None

    def _decode_content(
        self, choice: dict[str, Any], number: int, idx: str, deltas: list[Delta], is_last: bool,
        is_unstreamed: bool,
    ) -> None:  # fmt: skip
        text = choice.get("text")
        if isinstance(text, str):
            if text:
                deltas.append(Delta(text, TEXT, idx))
        elif text is not None:
            self._unknown(idx, "text", choice, deltas)
        for key, value in choice.items():
            if key not in _CHOICE_KEYS and key != "error" and value is not None:
                self._extra_key(choice, key, idx, deltas)

    def _extra_key(self, choice: dict[str, Any], key: str, idx: str, deltas: list[Delta]) -> None:
        """Adds reasoning, once if both names hold the same text, or the value of an unknown key."""
        text = choice[key]
        if key not in _REASONING or not isinstance(text, str):
            self._unknown(idx, key, choice, deltas)
        elif text and (key == _REASONING[0] or choice.get(_REASONING[0]) != text):
            deltas.append(Delta(text, REASONING, idx))
