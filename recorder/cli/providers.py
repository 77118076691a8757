"""The provider of `recorder chat`: a real one if its API key is in the environment, else one on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recorder import models
from recorder.cli.demo import no_proxy
from recorder.errors import ConfigError
from recorder.testing import Answer, LoopbackProvider, answer_openai_chat, pieces_of
from recorder.testing.song import VERSES

OPENAI, ANTHROPIC, LOOPBACK = "openai", "anthropic", "loopback"
PROVIDERS = (OPENAI, ANTHROPIC, LOOPBACK)

_MODELS = {OPENAI: "gpt-5.4-mini", ANTHROPIC: "claude-haiku-5-5", LOOPBACK: "loopback"}
_KEYS = {OPENAI: "OPENAI_API_KEY", ANTHROPIC: "ANTHROPIC_API_KEY"}
#: The first letters of the names of Anthropic's models.
_CLAUDE = "claude"
#: Tokens per second of the provider on this machine.
_PACE = 30


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider and one of its models."""

    #: openai, anthropic or loopback.
    provider: str
    model: str
    #: Whether it is the provider on this machine because no API key is set, not because it was requested.
    no_key_is_set: bool = False


def choose(provider: str | None, model: str | None, environment: Mapping[str, str] = os.environ) -> Choice:
    """The requested provider, or the one whose API key is set.

    Raises `ConfigError` for an unknown provider, or one whose key is not set.
    """
    keys = [name for name, key in _KEYS.items() if environment.get(key)]
    if provider is None:
        found = ANTHROPIC if ANTHROPIC in keys and (model or "").startswith(_CLAUDE) else (*keys, LOOPBACK)[0]
        return Choice(found, model or _MODELS[found], no_key_is_set=not keys)
    if provider not in PROVIDERS:
        raise ConfigError(f"--provider is {provider!r}; choose one of {', '.join(PROVIDERS)}")
    if provider in _KEYS and provider not in keys:
        raise ConfigError(
            f"{_KEYS[provider]} is not set, and {provider} needs an API key; set it, or pass --provider loopback"
        )
    return Choice(provider, model or _MODELS[provider])


@contextmanager
def open_model(choice: Choice, callbacks: list[Any]) -> Iterator[Any]:
    """The model. A provider on this machine runs until the end of the with-block."""
    if choice.provider != LOOPBACK:
        yield _model(choice, callbacks)
        return
    with LoopbackProvider(_verse) as provider, no_proxy():
        yield _model(choice, callbacks, base_url=provider.base_url, api_key="loopback")


def _model(choice: Choice, callbacks: list[Any], **options: Any) -> Any:
    kind = models.ChatAnthropic if choice.provider == ANTHROPIC else models.ChatOpenAI
    return kind(model=choice.model, streaming=True, callbacks=callbacks, **options)


def _verse(request: dict[str, Any], path: str) -> Answer:
    """The next verse of the song for each earlier answer in the request, which shows that the history is sent."""
    answers = sum(message.get("role") == "assistant" for message in request["messages"])
    verse = VERSES[answers % len(VERSES)].strip()
    return answer_openai_chat(pieces_of(verse), request, interval=1 / _PACE)
