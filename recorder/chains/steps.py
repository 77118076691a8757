"""The steps of a chain: prompts, models, parsers and functions, and LangChain's prompts and parsers.

A step makes a value of a value. In a stream, a step that can do so makes chunks: a model of its input, a parser of each
chunk that comes in.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError
from recorder.messages import AIMessageChunk
from recorder.models.runnable import Runnable

#: What runs of a step are called in LangChain's events; of a model or a chain, which report themselves, None.
PROMPT, PARSER, FUNCTION = "prompt", "parser", "chain"


class ChainStep(ABC):
    """One step. `config` is that of the runs in it."""

    kind: str | None = None
    #: Whether the step makes chunks of each chunk that comes in. Any other one needs the complete input.
    maps_chunks = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        """The output for a complete input."""

    async def avalue(self, input: Any, config: Mapping[str, Any]) -> Any:
        """`value` on an event loop."""
        return self.value(input, config)

    def chunks(self, input: Any, config: Mapping[str, Any]) -> Iterator[Any]:
        """The output in chunks."""
        yield self.value(input, config)

    async def achunks(self, input: Any, config: Mapping[str, Any]) -> AsyncIterator[Any]:
        """`chunks` on an event loop."""
        yield await self.avalue(input, config)

    def transform(self, chunks: Iterator[Any]) -> Iterator[Any]:
        """The output for the chunks of an input. Only of a step that maps chunks."""
        raise NotImplementedError

    def atransform(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """`transform` on an event loop."""
        raise NotImplementedError


class RunnableStep(ChainStep):
    """A model, a chain, or a model with retries or structured output. It reports its runs itself."""

    def __init__(self, runnable: Runnable, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(getattr(runnable, "name", None) or type(runnable).__name__)
        self.runnable = runnable
        self._options = dict(options or {})

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        return self.runnable.invoke(input, config, **self._options)

    async def avalue(self, input: Any, config: Mapping[str, Any]) -> Any:
        return await self.runnable.ainvoke(input, config, **self._options)

    def chunks(self, input: Any, config: Mapping[str, Any]) -> Iterator[Any]:
        return self.runnable.stream(input, config, **self._options)

    def achunks(self, input: Any, config: Mapping[str, Any]) -> AsyncIterator[Any]:
        return self.runnable.astream(input, config, **self._options)


class PromptStep(ChainStep):
    """A prompt, of recorder or of LangChain."""

    kind = PROMPT

    def __init__(self, prompt: Any) -> None:
        super().__init__(type(prompt).__name__)
        self.prompt = prompt

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        return self.prompt.invoke(input)


class ParserStep(ChainStep):
    """A parser of recorder: a function of a message or of a chunk."""

    kind = PARSER
    maps_chunks = True

    def __init__(self, parser: Any) -> None:
        super().__init__(type(parser).__name__)
        self.of_chunk: Callable[[Any], Any] = parser.invoke

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        return self.of_chunk(input)

    def transform(self, chunks: Iterator[Any]) -> Iterator[Any]:
        return map(self.of_chunk, chunks)

    async def atransform(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with Owned(chunks) as owned:
            async for chunk in owned:
                yield self.of_chunk(chunk)


class FunctionStep(ChainStep):
    """A plain or `async` function of one complete value. On an event loop a plain one runs on a thread."""

    kind = FUNCTION

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__(getattr(function, "__name__", type(function).__name__))
        self._function = function

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        result = self._function(input)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigError(f"The step {self.name} is asynchronous; call the chain with ainvoke or astream")
        return result

    async def avalue(self, input: Any, config: Mapping[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(input)
        result = await asyncio.to_thread(self._function, input)
        return await result if inspect.isawaitable(result) else result


def total(chunks: list[Any]) -> Any:
    """The sum of the chunks of an output. Chunks that cannot be added grow, so the last one is the sum."""
    if len(chunks) == 1:
        return chunks[0]
    if not chunks:
        return ""
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    if all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        return chunks[0] + chunks[1:]
    return chunks[-1]


def collected(step: ChainStep, input: Any, config: Mapping[str, Any]) -> Any:
    """The output of a step that is streamed, so that handlers get its tokens."""
    chunks: Any = step.chunks(input, config)
    with closing(chunks):
        return total(list(chunks))


async def acollected(step: ChainStep, input: Any, config: Mapping[str, Any]) -> Any:
    """`collected` on an event loop."""
    async with Owned(step.achunks(input, config)) as chunks:
        return total([chunk async for chunk in chunks])
