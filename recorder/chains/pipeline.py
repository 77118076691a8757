"""Runs the steps of a chain in order: for a complete output, or for one in chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from functools import reduce
from typing import Any

from recorder.chains.event_log import EventLog, LoggedStep
from recorder.chains.steps import ChainStep, ParserStep, RunnableStep, acollected, collected
from recorder.core.owned_generator import Owned
from recorder.models.call_config import merge_tags

#: Makes the chunk that a caller gets of the chunk of the last step but the parsers.
OfChunk = Callable[[Any], Any]


class Pipeline:
    """Steps in their order. If they are `numbered`, runs in them have LangChain's tags `seq:step:1`, ...

    The last step that needs a complete input makes the chunks of a stream. The steps after it map them; parsers of
    recorder at the end are functions of a chunk, so that a token costs no further generator.
    """

    def __init__(self, steps: Sequence[ChainStep], *, numbered: bool = False) -> None:
        self._steps = steps
        self._numbered = numbered
        self._source = max((n for n, step in enumerate(steps) if not step.maps_chunks), default=0)
        end = len(steps)
        while end - 1 > self._source and isinstance(steps[end - 1], ParserStep):
            end -= 1
        self._after = steps[self._source + 1 : end]
        self._parsers: list[Any] = list(steps[end:])

    def logged(self, log: EventLog, config: Mapping[str, Any]) -> Pipeline:
        """The same steps, of which those that make no runs are reported to the log. As in LangChain, not those of
        older chains, which are not numbered."""
        if not self._numbered:
            return self
        steps = [
            step if step.kind is None else LoggedStep(
                step, log, parent_run_id=config["parent_run_id"], metadata=config.get("metadata") or {},
                tags=self._config(config, number).get("tags") or [],
            )
            for number, step in enumerate(self._steps)
        ]  # fmt: skip
        return Pipeline(steps, numbered=True)

    def value(self, input: Any, config: Mapping[str, Any]) -> Any:
        """The output for an input."""
        for number, step in enumerate(self._steps):
            input = step.value(input, self._config(config, number))
        return input

    async def avalue(self, input: Any, config: Mapping[str, Any]) -> Any:
        """`value` on an event loop."""
        for number, step in enumerate(self._steps):
            input = await step.avalue(input, self._config(config, number))
        return input

    def open(self, input: Any, config: Mapping[str, Any], stack: ExitStack) -> tuple[Iterator[Any], OfChunk]:
        """The chunks of the output, and what makes the caller's chunk of each. `stack` closes what is open."""
        for number, step in enumerate(self._steps[: self._source]):
            input = _streamed(step)(step, input, self._config(config, number))
        source = self._steps[self._source]
        chunks = _closed_by(stack, source.chunks(input, self._config(config, self._source)))
        for step in self._after:
            chunks = _closed_by(stack, step.transform(chunks))
        return chunks, self._of_chunk()

    async def aopen(
        self, input: Any, config: Mapping[str, Any], stack: AsyncExitStack
    ) -> tuple[AsyncIterator[Any], OfChunk]:
        """`open` on an event loop."""
        for number, step in enumerate(self._steps[: self._source]):
            work = acollected if isinstance(step, RunnableStep) else type(step).avalue
            input = await work(step, input, self._config(config, number))
        source = self._steps[self._source]
        opened = Owned(source.achunks(input, self._config(config, self._source)))
        chunks: AsyncIterator[Any] = await stack.enter_async_context(opened)
        for step in self._after:
            chunks = await stack.enter_async_context(Owned(step.atransform(chunks)))
        return chunks, self._of_chunk()

    def _of_chunk(self) -> OfChunk:
        functions = [step.of_chunk for step in self._parsers]
        if len(functions) == 1:
            return functions[0]  # type: ignore[no-any-return]
        return lambda chunk: reduce(lambda value, function: function(value), functions, chunk)

    def _config(self, config: Mapping[str, Any], number: int) -> Mapping[str, Any]:
        if not self._numbered:
            return config
        return {**config, "tags": merge_tags(config.get("tags"), [f"seq:step:{number + 1}"])}


def _streamed(step: ChainStep) -> Callable[[ChainStep, Any, Mapping[str, Any]], Any]:
    """How a step before the last one is run in a stream: models stream, so that handlers get their tokens."""
    return collected if isinstance(step, RunnableStep) else type(step).value


def _closed_by(stack: ExitStack, chunks: Any) -> Iterator[Any]:
    if hasattr(chunks, "close"):
        stack.enter_context(closing(chunks))
    found: Iterator[Any] = chunks
    return found
