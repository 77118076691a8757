"""`ChatPromptTemplate`: messages with `{variables}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from recorder.chains.message_templates import MessagesPlaceholder, template_of
from recorder.chains.prompt_values import ChatPromptValue
from recorder.chains.prompts import BasePromptTemplate, check_format
from recorder.errors import ConfigError
from recorder.messages import messages_from


class ChatPromptTemplate(BasePromptTemplate):
    """A prompt of messages: `ChatPromptTemplate([("system", "You are {name}."), ("human", "{question}")])`.

    An item is a text (a message of the user), a pair of role and text, a dict with `role` and `content`, a message, or
    a template of a message such as `MessagesPlaceholder("history")`. The fields are those of `PromptTemplate`. A
    message object is sent as it is: its braces are no fields.
    """

    def __init__(
        self, messages: Sequence[Any], *, input_variables: Sequence[str] | None = None,
        partial_variables: Mapping[str, Any] | None = None, template_format: str = "f-string",
    ) -> None:  # fmt: skip
        check_format(template_format)
        if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
            raise ConfigError(
                f"ChatPromptTemplate takes a list of messages, not {type(messages).__name__}; pass [('human', '...')]"
            )
        #: The templates of the messages.
        self.messages: list[Any] = []
        self.partial_variables = dict(partial_variables or {})
        self.extend(messages)

    @classmethod
    def from_messages(cls, messages: Sequence[Any], template_format: str = "f-string") -> Self:
        """A prompt of these messages."""
        return cls(messages, template_format=template_format)

    @classmethod
    def from_template(cls, template: str, **options: Any) -> Self:
        """A prompt of one message of the user."""
        return cls([template], **options)

    @property
    def placeholders(self) -> set[str]:
        """The names of the variables that are lists of messages."""
        return {each.variable_name for each in self.messages if isinstance(each, MessagesPlaceholder)}

    def format_prompt(self, **values: Any) -> ChatPromptValue:
        """The messages with these values, as a prompt value."""
        known = self._all_values(values)
        parts = [each.format_messages(**known) for each in self.messages]
        return ChatPromptValue([message for part in parts for message in messages_from(part)])

    def append(self, message: Any) -> None:
        """Add a message at the end."""
        self.extend([message])

    def extend(self, messages: Sequence[Any]) -> None:
        """Add messages at the end."""
        self.messages = [*self.messages, *map(template_of, messages)]
        names = {name for each in self.messages for name in each.input_variables}
        self._set_variables(sorted(names), self.partial_variables)

    def __add__(self, other: Any) -> ChatPromptTemplate:
        """The messages of both."""
        more = other.messages if isinstance(other, ChatPromptTemplate) else other
        more = [more] if isinstance(more, (str, tuple)) or not isinstance(more, Sequence) else more
        known = {**self.partial_variables, **getattr(other, "partial_variables", {})}
        return ChatPromptTemplate([*self.messages, *more], partial_variables=known)

    def __len__(self) -> int:
        return len(self.messages)

    def __getitem__(self, place: int) -> Any:
        return self.messages[place]

    def __repr__(self) -> str:
        return f"ChatPromptTemplate(input_variables={self.input_variables!r}, {len(self.messages)} messages)"
