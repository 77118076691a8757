"""Makes the models of a server from its configuration. API keys come from the environment only."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import recorder.models
from recorder.errors import ConfigError, RecorderError
from recorder.memory.bounds import ConversationBufferMemory, ConversationBufferWindowMemory
from recorder.server.chat_models import ServedModel
from recorder.server.configuration import Configuration, ModelTable

#: The key that is sent to a host of the configuration if none is named, so that a key of the environment that belongs
#: to another host is not.
_NO_KEY = "none"
#: What `options` cannot set: it has a place of its own, or belongs to the recorder.
_NO_OPTIONS = frozenset(
    (*ModelTable.model_fields, "model_name", "openai_api_base", "anthropic_api_url", "callbacks")
)
#: Provider -> a module of its SDK, which is imported with the configuration: later it would stop the event loop for two
#: seconds.
_SDK_MODULES = {
    "ChatOpenAI": "openai.resources.chat.completions",
    "ChatAnthropic": "anthropic.resources.messages",
}


def configured_models(configuration: Configuration) -> list[ServedModel]:
    """The models of a configuration. Raises `ConfigError` for an option that a class does not have, and for a variable
    that is not set."""
    return [_configured(name, table) for name, table in configuration.models.items()]


def _configured(name: str, table: ModelTable) -> ServedModel:
    for option in table.options:
        if option in _NO_OPTIONS:
            raise ConfigError(
                f"[models.{name}.options] has {option!r}, which is set in [models.{name}] or by recorder"
            )
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
