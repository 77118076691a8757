"""The models that clients of a server may call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recorder.errors import ConfigError
from recorder.memory.bounds import ConversationBufferMemory
from recorder.messages import BaseMessage, SystemMessage


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with the limits of its runs."""

    #: By which clients call it.
    name: str
    #: A chat model of `recorder.models`.
    llm: Any
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


def given_models(models: Mapping[str, Any]) -> list[ServedModel]:
    """Models of an application, with the limits that a configuration has by default. Raises `ConfigError`."""
    if not isinstance(models, Mapping):
        raise ConfigError(
            f"models is of type {type(models).__name__}; pass a dict: {{'small': ChatOpenAI(model='...')}}"
        )
    for name, llm in models.items():
        if not (isinstance(name, str) and name and hasattr(llm, "astream")):
            raise ConfigError(
                f"models[{name!r:.80}] is of type {type(llm).__name__}; pass chat models of recorder.models"
            )
    return [ServedModel(name, llm) for name, llm in models.items()]
