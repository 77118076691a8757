"""Counts the tokens of texts and messages for OpenAI's models, with the library tiktoken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recorder.costs.encodings import encoding_of
from recorder.costs.token_counts import MESSAGE, REPLY, SMALL_IMAGE
from recorder.errors import ConfigError
from recorder.redaction.credentials import shown

#: OpenAI's numbers: the tokens around a message's name, and around a tool call's id.
_NAME, _CALL_ID = 1, 3


class TokenCounter:
    """LangChain's `get_num_tokens` and `get_token_ids` for models of OpenAI."""

    model_name: str
    #: The model whose tokens are counted, if it is another one than `model_name`.
    tiktoken_model_name: str | None = None

    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text. Needs the extra `tokens`, and downloads the vocabulary at first use.

        Raises `MissingExtra` without it, and `ConfigError` for a model whose vocabulary is unknown: then pass
        `tiktoken_model_name`.
        """
        ids: list[int] = encoding_of(self.tiktoken_model_name or self.model_name).encode_ordinary(text)
        return ids

    def get_num_tokens(self, text: str) -> int:
        """The number of tokens of a text. Needs what `get_token_ids` needs."""
        return len(self.get_token_ids(text))


def num_tokens(messages: Sequence[Mapping[str, Any]], count: Callable[[str], int]) -> int:
    """The tokens of these messages in OpenAI's form. `count` counts those of a text."""
    return sum(MESSAGE + _message_tokens(message, count) for message in messages) + REPLY


def _message_tokens(message: Mapping[str, Any], count: Callable[[str], int]) -> int:
    total = 0
    for key, value in message.items():
        if key == "tool_call_id":
            total += _CALL_ID
        elif isinstance(value, list):
            total += sum(_part_tokens(part, count) for part in value)
        elif value:
            total += count(str(value)) + (_NAME if key == "name" else 0)
    return total


def _part_tokens(part: Any, count: Callable[[str], int]) -> int:
    """The tokens of a block of the content, or of a tool call."""
    if isinstance(part, str):
        return count(part)
    kind = part.get("type")
    if kind == "text":
        return count(part["text"])
    if kind == "function":
        return count(part["function"]["name"]) + count(part["function"]["arguments"])
    if kind == "image_url" and part["image_url"].get("detail") == "low":
        return SMALL_IMAGE
    raise ConfigError(
        f"The tokens of a block of type {shown(kind)} cannot be counted; leave it out, or give an image detail='low'"
    )
