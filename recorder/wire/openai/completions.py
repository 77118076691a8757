"""OpenAI's legacy completions, and those who serve them still, to deltas.

A streamed event and a whole answer have the same shape, `choices[].text`. Dialects: reasoning beside the text
(OpenRouter, DeepSeek), log probabilities as chat has them (vLLM), the text of a chat's delta beside it (Together).
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import Any

from recorder.wire.deltas import REASONING, TEXT, Delta
from recorder.wire.openai.events import FILTERED, PLAIN_KEYS, OpenAIEvents

WIRE = "openai.completions"

#: Keys of a choice that are read elsewhere, or that say nothing of the answer.
_CHOICE_KEYS = frozenset(
    ("index", "text", "finish_reason", "native_finish_reason", "logprobs", "usage", "delta", "token_id", "token_ids",
     "prompt_token_ids", FILTERED)
)  # fmt: skip
_REASONING = ("reasoning_content", "reasoning")


class OpenAICompletions(OpenAIEvents):
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire = WIRE

    @staticmethod
    def _is_whole(choice: dict[str, Any]) -> bool:
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
                and FILTERED not in choice
                and not event.get("usage")
                and _CHOICE_KEYS.issuperset(choice)
                and PLAIN_KEYS.issuperset(event)
            ):
                return text
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        return None

    def _content(
        self, choice: dict[str, Any], number: int, idx: str, found: list[Delta], closing: bool, whole: bool
    ) -> None:
        text = choice.get("text")
        if isinstance(text, str):
            if text:
                found.append(Delta(text, TEXT, idx))
        elif text is not None:
            self._unknown(idx, "text", choice, found)
        for key, value in choice.items():
            if key not in _CHOICE_KEYS and key != "error" and value is not None:
                self._more_of(choice, key, idx, found)

    def _more_of(self, choice: dict[str, Any], key: str, idx: str, found: list[Delta]) -> None:
        """Reasoning, once where it comes under both names; and what nobody told us about."""
        thought = choice[key]
        if key not in _REASONING or not isinstance(thought, str):
            self._unknown(idx, key, choice, found)
        elif thought and (key == _REASONING[0] or choice.get(_REASONING[0]) != thought):
            found.append(Delta(thought, REASONING, idx))
