"""The models that clients of a server may call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import recorder.models
from recorder.chains.bounds import ConversationBufferMemory, ConversationBufferWindowMemory
from recorder.errors import ConfigError, RecorderError
from recorder.messages import BaseMessage, SystemMessage
from recorder.models import BaseChatModel
from recorder.server.configuration import Configuration, ModelTable

#: The key that is sent to a host of the configuration if none is named, so that a key of the environment that belongs
#: to another host is not.
_NO_KEY = "none"
#: Provider -> a module of its SDK, which is imported with the configuration: later it would stop the event loop for two
#: seconds.
_SDK_MODULES = {
    "ChatOpenAI": "openai.resources.chat.completions",
    "ChatAnthropic": "anthropic.resources.messages",
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with the limits of its runs."""

    #: By which clients call it.
    name: str
    llm: BaseChatModel
    #: As in `ModelTable`.
    max_runs: int = 20
    timeout: float = 600.0
    instructions: str | None = None
    #: How much of the conversation is sent.
    memory: ConversationBufferMemory = field(default_factory=ConversationBufferMemory)

    def prompt(self, earlier: list[BaseMessage], new: list[BaseMessage]) -> list[BaseMessage]:
        """What is sent: the instructions, the conversation up to now, and the new messages."""
        first: list[BaseMessage] = [SystemMessage(self.instructions)] if self.instructions else []
        return [*first, *earlier, *new]


def configured_models(configuration: Configuration) -> list[ServedModel]:
    """The models of a configuration. Raises `ConfigError` for an option that a class does not have, and for a variable
    that is not set."""
    return [_configured(name, table) for name, table in configuration.models.items()]


def given_models(models: Mapping[str, BaseChatModel]) -> list[ServedModel]:
    """Models of an application, with the limits that a configuration has by default. Raises `ConfigError`."""
    if not isinstance(models, Mapping):
        raise ConfigError(
            f"models is of type {type(models).__name__}; pass a dict: {{'small': ChatOpenAI(model='...')}}"
        )
    for name, llm in models.items():
        if not (isinstance(name, str) and name and isinstance(llm, BaseChatModel)):
            raise ConfigError(
                f"models[{name!r:.80}] is of type {type(llm).__name__}; pass chat models of recorder.models"
            )
    return [ServedModel(name, llm) for name, llm in models.items()]


def _configured(name: str, table: ModelTable) -> ServedModel:
    given: dict[str, Any] = {"model": table.model, "timeout": table.timeout, **table.options}
    for option in ("base_url", "max_tokens"):
        if (value := getattr(table, option)) is not None:
            given[option] = value
    if (key := _key(name, table)) is not None:
        given["api_key"] = key
    import_module(_SDK_MODULES[table.provider])
    try:
        llm = getattr(recorder.models, table.provider)(**given)
    except (RecorderError, TypeError, ValueError) as error:
        raise ConfigError(f"[models.{name}]: {error}") from error
    memory = ConversationBufferWindowMemory(k=table.history_turns) if table.history_turns else None
    return ServedModel(
        name, llm, table.max_runs, table.timeout, table.instructions, memory or ConversationBufferMemory()
    )


def _key(name: str, table: ModelTable) -> str | None:
    """The API key; None where the SDK reads it from its own variable."""
    if table.api_key_env is None:
        return _NO_KEY if table.base_url is not None else None
    if not (key := os.environ.get(table.api_key_env)):
        raise ConfigError(
            f"[models.{name}] api_key_env: the environment variable {table.api_key_env} is not set; export it"
        )
    return key
