"""LangChain's prompts, parsers and other runnables as steps of a chain. Its models are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from recorder.chains.steps import FUNCTION, PARSER, ChainStep, PromptStep
from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError
from recorder.messages import AIMessageChunk, BaseMessage


def is_langchains(thing: Any) -> bool:
    """Whether this is an object of LangChain's classes."""
    return any(kind.__module__.split(".")[0] == "langchain_core" for kind in type(thing).__mro__)


def langchain_step(thing: Any) -> ChainStep:
    """The step. Raises `ConfigError` for a model of LangChain, and for what is not called like a model."""
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.output_parsers import BaseLLMOutputParser
    from langchain_core.prompts import BasePromptTemplate
    from langchain_core.runnables import Runnable

    if isinstance(thing, BaseLanguageModel):
        raise ConfigError(
            f"{type(thing).__name__} is a model of LangChain; use recorder.models, or build the chain with LangChain's "
            "own prompts and record it with recorder.integrations.langchain.ChatHistoryCallback"
        )
    if isinstance(thing, BasePromptTemplate):
        return PromptStep(thing)
    if not isinstance(thing, Runnable):
        raise ConfigError(f"{type(thing).__name__} cannot be a step of a chain; pass a prompt or a parser")
    return LangChainStep(thing, PARSER if isinstance(thing, BaseLLMOutputParser) else FUNCTION)


class LangChainStep(ChainStep):
    """A parser or another runnable of LangChain. It gets LangChain's messages."""

    maps_chunks = True

    def __init__(self, runnable: Any, kind: str) -> None:
        super().__init__(runnable.get_name())
        self.kind = kind
        self._runnable = runnable

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        return self._runnable.invoke(_for_langchain(input))

    async def avalue(self, input: Any, config: Mapping[str, Any]) -> Any:
        return await self._runnable.ainvoke(_for_langchain(input))

    def transform(self, chunks: Iterator[Any]) -> Iterator[Any]:
        found: Iterator[Any] = self._runnable.transform(map(_for_langchain, chunks))
        return found

    def atransform(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        found: AsyncIterator[Any] = self._runnable.atransform(_each_for_langchain(chunks))
        return found


def _for_langchain(value: Any) -> Any:
    if not isinstance(value, BaseMessage):
        return value
    from recorder.models.langchain_messages import chunk_to_langchain, to_langchain

    if isinstance(value, AIMessageChunk):
        return chunk_to_langchain(value)
    return to_langchain(value)


async def _each_for_langchain(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async with Owned(chunks) as owned:
        async for chunk in owned:
            yield _for_langchain(chunk)
