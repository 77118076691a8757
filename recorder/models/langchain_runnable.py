"""A model, or what is called like one, as a runnable of LangChain, which streams in LangChain's chains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from langchain_core.runnables import Runnable as LangChainsRunnable

from recorder.callbacks import handlers_from
from recorder.core.owned_generator import Owned
from recorder.messages import AIMessageChunk, BaseMessage
from recorder.models.call_config import parent_of
from recorder.models.langchain_messages import chunk_to_langchain, to_langchain

#: The packages whose handlers need LangChain's own messages.
_TRACERS = ("langchain_core.", "langchain_classic.", "langsmith.")


class LangChainRunnable(LangChainsRunnable[Any, Any]):
    """Takes what the runnable takes, and gives LangChain's messages.

    Handlers of LangChain's config get the runs, except LangChain's own tracers.
    """

    def __init__(self, runnable: Any) -> None:
        self._runnable = runnable
        self.name = getattr(runnable, "name", None) or type(runnable).__name__

    def invoke(self, input: Any, config: Any = None, **options: Any) -> Any:
        """Return the complete answer."""
        return _given(self._runnable.invoke(input, _config(config), **options))

    async def ainvoke(self, input: Any, config: Any = None, **options: Any) -> Any:
        """`invoke` on an event loop."""
        return _given(await self._runnable.ainvoke(input, _config(config), **options))

    def stream(self, input: Any, config: Any = None, **options: Any) -> Iterator[Any]:
        """Yield the answer in chunks as they arrive."""
        chunks = self._runnable.stream(input, _config(config), **options)
        try:
            yield from map(_given, chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    async def astream(self, input: Any, config: Any = None, **options: Any) -> AsyncIterator[Any]:
        """`stream` on an event loop."""
        async with Owned(self._runnable.astream(input, _config(config), **options)) as chunks:
            async for chunk in chunks:
                yield _given(chunk)


def _config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config without what belongs to LangChain only."""
    given = dict(config or {})
    handlers = [
        each
        for each in handlers_from(given.get("callbacks"))
        if not type(each).__module__.startswith(_TRACERS)
    ]
    keys = ("tags", "metadata", "configurable", "max_concurrency")
    found = {key: given[key] for key in keys if given.get(key)}
    return {**found, "callbacks": handlers, "parent_run_id": parent_of(given)}


def _given(value: Any) -> Any:
    if isinstance(value, AIMessageChunk):
        return chunk_to_langchain(value)
    return to_langchain(value) if isinstance(value, BaseMessage) else value
