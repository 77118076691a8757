"""Helpers for the tests of `ChatAnthropic`: a model and a bare SDK client, both of a loopback provider."""

from __future__ import annotations

from functools import cache
from typing import Any

import anthropic

from recorder.models import ChatAnthropic
from recorder.testing import LoopbackProvider

#: The request that is sent through the bare SDK for a comparison.
ASK: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "Hi"}],
}


def chat(provider: LoopbackProvider, **options: Any) -> ChatAnthropic:
    """Return a model of this provider that sends each request once, without retries."""
    settings = {"base_url": provider.url, "api_key": "any", "max_retries": 0}
    return ChatAnthropic(**{**settings, **options})


@cache
def _shared_http() -> anthropic.DefaultHttpxClient:
    """Return one HTTP client for all tests, because making one takes longer than most tests."""
    return anthropic.DefaultHttpxClient(verify=False)


def sdk(provider: LoopbackProvider, **options: Any) -> anthropic.Anthropic:
    """Return a client of the bare SDK for this provider."""
    settings: dict[str, Any] = {
        "base_url": provider.url, "api_key": "any", "max_retries": 0, **options
    }  # fmt: skip
    return anthropic.Anthropic(**settings, http_client=_shared_http())


def blocks_of(message: Any) -> list[dict[str, Any]]:
    """Return the content blocks of an SDK message without empty values."""
    return [stripped(block.model_dump(mode="json", warnings=False)) for block in message.content]


def stripped(value: Any) -> Any:
    """Remove keys without a value at all depths; SDK models list every key that could be there."""
    if isinstance(value, list):
        return [stripped(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: stripped(each) for key, each in value.items() if each is not None and each != []}
