"""Who answers in `recorder chat`: a real provider when its key is in the environment, else one on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recorder import models
from recorder.cli.demo import reachable
from recorder.errors import ConfigError
from recorder.testing import Answer, LoopbackProvider, answer_openai_chat, pieces_of
from recorder.testing.song import VERSES

OPENAI, ANTHROPIC, LOOPBACK = "openai", "anthropic", "loopback"
PROVIDERS = (OPENAI, ANTHROPIC, LOOPBACK)

_MODELS = {OPENAI: "gpt-4o-mini", ANTHROPIC: "claude-haiku-4-5", LOOPBACK: "loopback"}
_KEYS = {OPENAI: "OPENAI_API_KEY", ANTHROPIC: "ANTHROPIC_API_KEY"}
#: What a model of Anthropic's begins with.
_CLAUDE = "claude"
#: Tokens a second of the provider on this machine.
_PACE = 30


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider and one of its models."""

    #: openai, anthropic or loopback.
    provider: str
    model: str
    #: Whether nobody asked for this one, and it is there because there is no key for another.
    for_want_of_a_key: bool = False


def choose(provider: str | None, model: str | None, environment: Mapping[str, str] = os.environ) -> Choice:
    """The provider that was asked for, or the one whose key there is. Raises `ConfigError` where that cannot be."""
    keys = [name for name, key in _KEYS.items() if environment.get(key)]
    if provider is None:
        found = ANTHROPIC if ANTHROPIC in keys and (model or "").startswith(_CLAUDE) else (*keys, LOOPBACK)[0]
        return Choice(found, model or _MODELS[found], for_want_of_a_key=not keys)
    if provider not in PROVIDERS:
        raise ConfigError(f"--provider is {provider!r}; choose one of {', '.join(PROVIDERS)}")
    if provider in _KEYS and provider not in keys:
        raise ConfigError(
            f"{_KEYS[provider]} is not set, and {provider} answers nobody without a key; "
            "export it, or pass --provider loopback"
        )
    return Choice(provider, model or _MODELS[provider])


@contextmanager
def answering(choice: Choice, callbacks: list[Any]) -> Iterator[Any]:
    """The model, and while it is wanted its provider, where that one is on this machine."""
    if choice.provider != LOOPBACK:
        yield _model(choice, callbacks)
        return
    with LoopbackProvider(_verse) as provider, reachable():
        yield _model(choice, callbacks, base_url=provider.base_url, api_key="loopback")


def _model(choice: Choice, callbacks: list[Any], **options: Any) -> Any:
    kind = models.ChatAnthropic if choice.provider == ANTHROPIC else models.ChatOpenAI
    return kind(model=choice.model, streaming=True, callbacks=callbacks, **options)


def _verse(request: dict[str, Any], path: str) -> Answer:
    """Another verse of the song with each answer, so that it can be seen that the history was sent along."""
    said = sum(message.get("role") == "assistant" for message in request["messages"])
    verse = VERSES[said % len(VERSES)].strip()
    return answer_openai_chat(pieces_of(verse), request, interval=1 / _PACE)
