"""`BaseChain`: what sequences and LangChain's older chains have in common. A chain is a run around the runs in it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, fields
from typing import Any

from recorder.callbacks import handlers_from
from recorder.chains.chain_run import ChainRequest, ChainRun, serialized
from recorder.chains.event_log import EVENTS_KEY, EventLog
from recorder.chains.pipeline import Pipeline
from recorder.chains.steps import total
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.models.call_config import merge_configs, merge_tags, metadata_of, parent_of, run_id_of
from recorder.models.runnable import Runnable
from recorder.models.stream_events import Filter, check_version
from recorder.runs.open_streams import closed_at_exit
from recorder.runs.sdk_stream import ReportingAsync, reporting

#: Keys of a config that the runs in a chain get as the caller passed them.
_PASSED_ON = ("configurable", "max_concurrency", EVENTS_KEY)


@dataclass(frozen=True, slots=True)
class ChainCall:
    """One call of a chain."""

    run: ChainRun
    #: The config of the runs in the chain.
    config: dict[str, Any]
    #: The inputs as the caller passed them.
    inputs: Any
    options: Mapping[str, Any]
    pipeline: Pipeline
    log: EventLog | None


class BaseChain(Runnable):
    """A chain: `invoke`, `stream`, `batch`, their asynchronous forms, and `astream_events`.

    `config` has LangChain's keys, as for models. Handlers of the chain and of `config` get the events of the models in
    it, too; a recorder on a model gets those of the chain, so that it stores the chain around the model's run.
    """

    def __init__(
        self, *, callbacks: Any = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        self.callbacks = handlers_from(callbacks)
        self.tags = list(tags or ())
        self.metadata = dict(metadata or {})
        self.name = name or type(self).__name__

    # -- for each kind of chain -----------------------------------------------------------------------------------

    @abstractmethod
    def _runnables(self) -> Sequence[Runnable]:
        """The models and chains in the chain."""

    @abstractmethod
    def _pipeline(self, inputs: Any, options: Mapping[str, Any]) -> Pipeline:
        """The steps of a call with these inputs and options."""

    def _inputs_of(self, input: Any) -> Any:
        """The inputs of the chain, as handlers and recordings show them."""
        return input

    def _first(self, call: ChainCall) -> Any:
        """The input of the first step."""
        return call.inputs

    async def _afirst(self, call: ChainCall) -> Any:
        """`_first` on an event loop."""
        return self._first(call)

    def _output_of(self, value: Any) -> Any:
        """The output of the chain, of that of the last step: complete, or one chunk."""
        return value

    def _named(self, metadata: dict[str, Any], handlers: Sequence[Any]) -> dict[str, Any]:
        """The metadata of the runs in the chain: these, and what else names their conversation."""
        return metadata

    # -- LangChain's methods ------------------------------------------------------------------------------------

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return the complete output."""
        call = self._call(input, config, options)
        with reporting(call.run):
            first = self._first(call)
            call.run.output = self._output_of(call.pipeline.value(first, call.config))
        return self._result(call, first)

    async def ainvoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`invoke` on an event loop."""
        call = self._call(input, config, options)
        async with ReportingAsync(call.run):
            first = await self._afirst(call)
            call.run.output = self._output_of(await call.pipeline.avalue(first, call.config))
        return self._result(call, first)

    def stream(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Any]:
        """Yield the output in chunks as they arrive. Leaving the loop early cancels the chain and the model in it."""
        return closed_at_exit(self._chunks(self._call(input, config, options)))

    def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """`stream` on an event loop."""
        return self._achunks(self._call(input, config, options))

    async def astream_events(
        self, input: Any, config: Mapping[str, Any] | None = None, *, version: str = "v2", **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield LangChain's events, version v2, of the chain and of all in it, each with the ids of its parents.

        `options` may have LangChain's `include_names`, `include_types`, `include_tags` and the same with `exclude_`.
        The chain runs in a task of its own, which is cancelled if the loop is left early. Raises the chain's error, and
        `ConfigError` for another version.
        """
        check_version(version)
        wanted = {field.name: options.pop(field.name, None) for field in fields(Filter)}
        log = EventLog(Filter(**wanted))
        given = merge_configs(config or {}, {EVENTS_KEY: log})
        given["callbacks"] = [*handlers_from(given.get("callbacks")), log]
        if config is not None and (parent := parent_of(config)) is not None:
            given["parent_run_id"] = parent
        task = asyncio.create_task(self._exhaust(log, self.astream(input, given, **options)))
        try:
            while (event := await log.queue.get()) is not None:
                yield event
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # of a task that nobody reads, asyncio would log it

    def attached_handlers(self) -> list[Any]:
        """The handlers of every call of the chain and of the models in it."""
        inside = [handler for each in self._runnables() for handler in each.attached_handlers()]
        return handlers_from([*super().attached_handlers(), *self.callbacks, *inside])

    # -- drivers: synchronous, and on an event loop -----------------------------------------------------------

    def _chunks(self, call: ChainCall) -> Generator[Any, None, None]:
        received: list[Any] = []
        output_of = self._output_of
        with reporting(call.run):
            with ExitStack() as stack:
                chunks, of_chunk = call.pipeline.open(self._first(call), call.config, stack)
                for chunk in chunks:
                    piece = of_chunk(chunk)
                    received.append(piece)
                    yield output_of(piece)
            call.run.output = output_of(total(received))

    async def _achunks(self, call: ChainCall) -> AsyncGenerator[Any, None]:
        received: list[Any] = []
        output_of, log, run_id = self._output_of, call.log, call.run.request.run_id
        async with ReportingAsync(call.run):
            async with AsyncExitStack() as stack:
                first = await self._afirst(call)
                chunks, of_chunk = await call.pipeline.aopen(first, call.config, stack)
                async for chunk in chunks:
                    piece = of_chunk(chunk)
                    received.append(piece)
                    output = output_of(piece)
                    if log is not None:
                        log.chunk(run_id, output)
                    yield output
            call.run.output = output_of(total(received))

    async def _exhaust(self, log: EventLog, chunks: Any) -> None:
        try:
            async for _ in chunks:
                pass
        finally:
            await chunks.aclose()
            log.queue.put_nowait(None)

    # -- calls ----------------------------------------------------------------------------------------------------

    def _result(self, call: ChainCall, first: Any) -> Any:
        """What `invoke` returns: by default the output."""
        return call.run.output

    def _call(self, input: Any, config: Mapping[str, Any] | None, options: Mapping[str, Any]) -> ChainCall:
        config = merge_configs(self._config, config or {})
        inputs = self._inputs_of(input)
        handlers = handlers_from([*handlers_from(config.get("callbacks")), *self.callbacks])
        with_recorders = handlers_from([*handlers, *self._recorders()])
        metadata = self._named({**self.metadata, **metadata_of(config)}, with_recorders)
        name = config.get("run_name") or self.name
        request = ChainRequest(
            name=name,
            serialized=dict(serialized(self, name)),
            inputs=inputs,
            handlers=with_recorders,
            run_id=run_id_of(config.get("run_id")),
            parent_run_id=parent_of(config),
            tags=merge_tags(config.get("tags"), self.tags),
            metadata=metadata,
        )
        inside = {key: config[key] for key in _PASSED_ON if key in config}
        inside |= {"callbacks": handlers, "tags": request.tags, "metadata": metadata}
        inside["parent_run_id"] = request.run_id
        pipeline = self._pipeline(inputs, options)
        log: EventLog | None = inside.get(EVENTS_KEY)
        if log is not None:
            pipeline = pipeline.logged(log, inside)
        return ChainCall(ChainRun(request), inside, inputs, options, pipeline, log)

    def _recorders(self) -> list[ChatHistoryCallback]:
        """The recorders of the chain and of the models in it."""
        return [each for each in self.attached_handlers() if isinstance(each, ChatHistoryCallback)]
