"""What the tests of Anthropic's model share: a model and the bare SDK, both of the loopback provider."""

from __future__ import annotations

from functools import cache
from typing import Any

import anthropic

from recorder.models import ChatAnthropic
from recorder.testing import LoopbackProvider

#: What the SDK is asked where it is compared with.
ASK: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "Hi"}],
}


def chat(provider: LoopbackProvider, **options: Any) -> ChatAnthropic:
    """A model of the provider that tries each request once."""
    settings = {"base_url": provider.url, "api_key": "any", "max_retries": 0}
    return ChatAnthropic(**{**settings, **options})


@cache
def _shared_http() -> anthropic.DefaultHttpxClient:
    """Making one takes longer than most of the stories."""
    return anthropic.DefaultHttpxClient(verify=False)


def sdk(provider: LoopbackProvider, **options: Any) -> anthropic.Anthropic:
    """The bare SDK's client of the provider."""
    settings: dict[str, Any] = {
        "base_url": provider.url, "api_key": "any", "max_retries": 0, **options
    }  # fmt: skip
    return anthropic.Anthropic(**settings, http_client=_shared_http())


def blocks_of(message: Any) -> list[dict[str, Any]]:
    """The content of the SDK's message, without what is empty."""
    return [stripped(block.model_dump(mode="json", warnings=False)) for block in message.content]


def stripped(value: Any) -> Any:
    """A value without its keys that hold nothing: SDKs name them all."""
    if isinstance(value, list):
        return [stripped(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: stripped(each) for key, each in value.items() if each is not None and each != []}
