"""Models whose answers the oracle can calculate."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from recorder.models import SimpleChatModel
from tests.oracle import Text, token


def model_token(number: int, seq: int) -> str:
    """The text of a token of a model, which is never empty, because an empty text is no token."""
    return token(number, seq) or "-"


def question(number: int) -> str:
    """The question whose answer is the tokens of this run."""
    return f"question {number}"


def config_of(number: int) -> dict[str, Any]:
    """The configuration that gives the run its id."""
    return {"run_id": uuid.UUID(int=number)}


class Numbered(SimpleChatModel):
    """Streams the tokens of the run that its question names."""

    def __init__(self, tokens: int = 50, text: Text = model_token, **settings: Any) -> None:
        super().__init__(**settings)
        self.tokens = tokens
        self.text = text

    def _stream(self, messages: list[Any], stop: list[str] | None = None, **options: Any) -> Iterator[str]:
        number = int(messages[-1].text.split()[-1])
        yield from (self.text(number, seq) for seq in range(self.tokens))

    async def _astream(
        self, messages: list[Any], stop: list[str] | None = None, **options: Any
    ) -> AsyncIterator[str]:
        number = int(messages[-1].text.split()[-1])
        for seq in range(self.tokens):
            await asyncio.sleep(0)
            yield self.text(number, seq)
