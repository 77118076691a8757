"""`StrOutputParser`: the text of a model's answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from recorder.chains.sequence import Pipeable
from recorder.chains.steps import ChainStep, ParserStep
from recorder.errors import ConfigError
from recorder.messages import BaseMessage, from_any
from recorder.redaction.credentials import shown


class StrOutputParser(Pipeable):
    """Makes a text of a message, of a text, and of each chunk of a stream. Blocks that are no text are left out."""

    def parse(self, text: str) -> str:
        """The text itself, as in LangChain."""
        return text

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> str:
        """The text. Raises `ConfigError` for what is neither a message nor a text."""
        if isinstance(input, BaseMessage):
            return input.text
        if isinstance(input, str):
            return input
        if hasattr(input, "additional_kwargs"):  # a message of LangChain
            return from_any(input).text
        raise ConfigError(
            f"StrOutputParser takes a message or a text, and got {type(input).__name__} {shown(input)}; leave the "
            "parser out, or put it behind the model"
        )

    async def ainvoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> str:
        """`invoke` on an event loop."""
        return self.invoke(input)

    def stream(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Iterator[str]:
        """Yield the text."""
        yield self.invoke(input)

    async def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[str]:
        """`stream` on an event loop."""
        yield self.invoke(input)

    def _step(self) -> ChainStep:
        return ParserStep(self)
