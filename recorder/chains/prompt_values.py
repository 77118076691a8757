"""What a prompt makes of its variables: a text, or messages. LangChain's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recorder.callbacks.dispatch import buffer_string
from recorder.messages import BaseMessage, HumanMessage


@dataclass(frozen=True, slots=True)
class StringPromptValue:
    """A text."""

    text: str

    def to_string(self) -> str:
        """The text, for a completion model."""
        return self.text

    def to_messages(self) -> list[BaseMessage]:
        """The text as a message of the user, for a chat model."""
        return [HumanMessage(self.text)]


@dataclass(frozen=True, slots=True)
class ChatPromptValue:
    """Messages."""

    messages: Sequence[BaseMessage]

    def to_string(self) -> str:
        """One text with a line such as "Human: ..." for each message."""
        return buffer_string(self.messages)

    def to_messages(self) -> list[BaseMessage]:
        """The messages."""
        return list(self.messages)
