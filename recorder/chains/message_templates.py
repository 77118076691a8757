"""The parts of a `ChatPromptTemplate`: messages with `{variables}`, and a place for a list of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from recorder.chains.prompt_template import PromptTemplate
from recorder.errors import ConfigError
from recorder.messages import BaseMessage, from_any, messages_from
from recorder.redaction.credentials import shown


class BaseMessagePromptTemplate:
    """One message whose text has `{variables}`."""

    #: The role of the message, in the words of a provider.
    role: ClassVar[str]

    def __init__(self, prompt: PromptTemplate, *, role: str | None = None) -> None:
        self.prompt = prompt
        self._role = role or self.role

    @classmethod
    def from_template(cls, template: str, **options: Any) -> Self:
        """A message of this text. `options` are those of `PromptTemplate.from_template`."""
        return cls(PromptTemplate.from_template(template, **options))

    @property
    def input_variables(self) -> list[str]:
        """The variables without a value."""
        return self.prompt.input_variables

    def format(self, **values: Any) -> BaseMessage:
        """The message with these values."""
        return from_any((self._role, self.prompt.format(**values)))

    def format_messages(self, **values: Any) -> list[BaseMessage]:
        """The message with these values, in a list."""
        return [self.format(**values)]


class HumanMessagePromptTemplate(BaseMessagePromptTemplate):
    """A message of the user."""

    role = "user"


class AIMessagePromptTemplate(BaseMessagePromptTemplate):
    """A message of the model."""

    role = "assistant"


class SystemMessagePromptTemplate(BaseMessagePromptTemplate):
    """Instructions."""

    role = "system"


class MessagesPlaceholder:
    """The place of a list of messages. An `optional` one may be missing. `n_messages` limits it to the last ones."""

    def __init__(self, variable_name: str, *, optional: bool = False, n_messages: int | None = None) -> None:
        if n_messages is not None and n_messages < 1:
            raise ConfigError(f"n_messages is {n_messages}; pass 1 or more, or leave it out")
        self.variable_name = variable_name
        self.optional = optional
        self.n_messages = n_messages

    @property
    def input_variables(self) -> list[str]:
        """The name of the list; nothing if it is optional."""
        return [] if self.optional else [self.variable_name]

    def format_messages(self, **values: Any) -> list[BaseMessage]:
        """The messages. Raises `ConfigError` for what is not a list of messages."""
        found = values.get(self.variable_name, []) if self.optional else values[self.variable_name]
        if not isinstance(found, (list, tuple)):
            raise ConfigError(
                f"{self.variable_name} is a place for a list of messages, and got {type(found).__name__} "
                f"{shown(found)}; pass a list"
            )
        return messages_from(list(found))[-(self.n_messages or 0) :]


class FixedMessage:
    """A message without variables."""

    input_variables: ClassVar[list[str]] = []

    def __init__(self, message: BaseMessage) -> None:
        self._message = message

    def format_messages(self, **values: Any) -> list[BaseMessage]:
        """The message, in a list."""
        return [self._message]


#: LangChain's names of roles -> the provider's.
_ROLES = {"human": "user", "ai": "assistant"}


def template_of(given: Any) -> Any:
    """The part of a prompt that this describes: a text, `(role, text)`, a dict, a message, or a part. See LangChain."""
    if callable(getattr(given, "format_messages", None)):
        return given
    if isinstance(given, str):
        return HumanMessagePromptTemplate.from_template(given)
    role, text = _role_and_text(given)
    if role == "placeholder":
        return _placeholder(text)
    if isinstance(role, type) and issubclass(role, BaseMessagePromptTemplate):
        return role.from_template(text)
    role = getattr(role, "role", role)
    if isinstance(role, str) and isinstance(text, str):
        return BaseMessagePromptTemplate(PromptTemplate.from_template(text), role=_ROLES.get(role, role))
    return FixedMessage(from_any(given))


def _role_and_text(given: Any) -> tuple[Any, Any]:
    if isinstance(given, Mapping) and given.keys() == {"role", "content"}:
        return given["role"], given["content"]
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return given[0], given[1]
    return None, None


def _placeholder(given: Any) -> MessagesPlaceholder:
    """LangChain's `("placeholder", "{history}")`: an optional list of messages."""
    text, optional = (given, True) if isinstance(given, str) else (given[0], bool(given[1]))
    if not (text.startswith("{") and text.endswith("}") and text[1:-1].isidentifier()):
        raise ConfigError(f"The placeholder {shown(text)} is no variable; write '{{history}}'")
    return MessagesPlaceholder(text[1:-1], optional=optional)
