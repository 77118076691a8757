"""What can be called like a model: `invoke`, `stream`, `batch` and their asynchronous forms.

Models are called like this, and also what `with_retry`, `with_fallbacks` and `with_structured_output` return.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import MappingProxyType
from typing import Any, Self

from recorder.callbacks import handlers_from
from recorder.core.owned_generator import Owned
from recorder.core.trampoline import Trampoline
from recorder.errors import ConfigError
from recorder.models.attempts import AttemptRules, Outcome, Pause, Try
from recorder.models.call_config import config_per_input, gather_all, merge_configs, returning_errors
from recorder.models.fallbacks import Fallbacks
from recorder.models.retries import ErrorTypes, Retries
from recorder.redaction.credentials import shown

#: Stands for the first chunk of a stream that has none.
_NO_CHUNK = object()


class Runnable(ABC):
    """The methods of everything that is called like a model, with LangChain's names and arguments."""

    #: The config of every call (`with_config`). The config of a call is merged into it.
    _config: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return the complete answer."""

    @abstractmethod
    async def ainvoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`invoke` on an event loop."""

    @abstractmethod
    def stream(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Any]:
        """Yield the answer in chunks as they arrive. Leaving the loop early cancels the run."""

    @abstractmethod
    def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """`stream` on an event loop."""

    def batch(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **options: Any
    ) -> list[Any]:
        """`invoke` for each input on threads, at most `config["max_concurrency"]` at a time. Results are in order.

        `config` is one for all inputs, or a list with one for each. The first error is raised;
        `return_exceptions=True` returns each error as the result of its input.
        """
        each = config_per_input(config, len(inputs))
        if not inputs:
            return []
        work = partial(returning_errors(self.invoke) if return_exceptions else self.invoke, **options)
        with ThreadPoolExecutor(self._concurrency(each)) as pool:
            futures = [
                pool.submit(copy_context().run, work, input, its_config)
                for input, its_config in zip(inputs, each, strict=True)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # Inputs that have not started are not run, because their results would be lost.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    async def abatch(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **options: Any
    ) -> list[Any]:
        """`ainvoke` for each input, at most `config["max_concurrency"]` at a time. Results are in order."""
        each = config_per_input(config, len(inputs))
        limit = asyncio.Semaphore(self._concurrency(each) or 2**31)

        async def one(input: Any, its_config: dict[str, Any]) -> Any:
            async with limit:
                return await self.ainvoke(input, its_config, **options)

        work = [one(input, its_config) for input, its_config in zip(inputs, each, strict=True)]
        return await gather_all(work, return_exceptions=return_exceptions)

    def attached_handlers(self) -> list[Any]:
        """The handlers of every call, each once: those of the constructor, of `with_config`, and of what is inside."""
        return handlers_from(self._config.get("callbacks"))

    def __call__(self, input: Any, *, config: Any = None, **options: Any) -> Any:
        """The same as `invoke`.

        LangChain calls what is piped behind a runnable of its own as a function with a `config`. It gets a runnable.
        """
        if is_langchains(config):
            return self._in_langchain()
        return self.invoke(input, config, **options)

    def with_config(self, config: Mapping[str, Any] | None = None, **settings: Any) -> Self:
        """A copy for which every call has this config: `callbacks`, `tags`, `metadata`, `run_name`, `max_concurrency`.

        `settings` are keys of the config. The config of a call is merged into it: callbacks and tags are added,
        metadata and other keys override.
        """
        return self._copy(_config=merge_configs(self._config, {**(config or {}), **settings}))

    def with_retry(
        self, *, retry_if_exception_type: ErrorTypes = (Exception,), wait_exponential_jitter: bool = True,
        exponential_jitter_params: Mapping[str, float] | None = None, stop_after_attempt: int = 3,
    ) -> Attempting:  # fmt: skip
        """The same, called again after an error of these types, at most `stop_after_attempt` times.

        `retry_if_exception_type` may also be a function that says so of an error. The pauses before further attempts
        grow: 1, 2, 4, ... seconds, and up to a second more; `exponential_jitter_params` may have `initial`, `max`,
        `exp_base` and `jitter`. With `wait_exponential_jitter=False` there are no pauses. Each attempt is a run of its
        own. A stream is tried again only before its first chunk. Raises the last error.
        """
        rules = Retries(
            retry_if_exception_type, stop_after_attempt, wait_exponential_jitter, exponential_jitter_params
        )
        return Attempting([self], rules)

    def with_fallbacks(
        self,
        fallbacks: Sequence[Any],
        *,
        exceptions_to_handle: tuple[type[BaseException], ...] = (Exception,),
    ) -> Attempting:
        """The same, but after an error of these types the next of `fallbacks` is called.

        Each call is a run of its own. In a stream the next one is called only before the first chunk. If all fail, the
        first error is raised. Raises `ConfigError` for a fallback that cannot be called like a model.
        """
        if invalid := [each for each in fallbacks if not callable(getattr(each, "ainvoke", None))]:
            raise ConfigError(f"with_fallbacks got {shown(invalid[0])}; pass models")
        return Attempting([self, *fallbacks], Fallbacks(1 + len(fallbacks), exceptions_to_handle))

    def _in_langchain(self) -> Any:
        """This as a runnable of LangChain."""
        from recorder.models.langchain_runnable import LangChainRunnable

        return LangChainRunnable(self)

    def _copy(self, **changed: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **changed)
        return other

    def _concurrency(self, configs: Sequence[Mapping[str, Any]]) -> int | None:
        """How many calls of a batch run at a time. None for no limit."""
        given = configs[0].get("max_concurrency") if configs else None
        return given or self._config.get("max_concurrency") or None


class Attempting(Runnable):
    """Models that are called in attempts, by the rules of `with_retry` or `with_fallbacks`."""

    def __init__(self, models: Sequence[Any], rules: AttemptRules) -> None:
        self._models = list(models)
        self._rules = rules

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return the complete answer of the first attempt that succeeds."""
        return self._attempt(config, lambda model, its: model.invoke(input, its, **options)).result()

    async def ainvoke(self, input: Any, config: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`invoke` on an event loop."""
        outcome = await self._aattempt(config, lambda model, its: model.ainvoke(input, its, **options))
        return outcome.result()

    def stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> Generator[Any, None, None]:
        """Yield the chunks of the first attempt that has a first chunk. Later errors are raised."""
        call = partial(_opened, input=input, options=options)
        first, chunks = self._attempt(config, call).result()
        try:
            if first is not _NO_CHUNK:
                yield first
            yield from chunks
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    async def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """`stream` on an event loop."""
        call = partial(_aopened, input=input, options=options)
        first, chunks = (await self._aattempt(config, call)).result()
        async with chunks:
            if first is not _NO_CHUNK:
                yield first
            async for chunk in chunks:
                yield chunk

    def attached_handlers(self) -> list[Any]:
        """The handlers of every call of each model."""
        inside = [handler for model in self._models for handler in model.attached_handlers()]
        return handlers_from([*super().attached_handlers(), *inside])

    def bind(self, **options: Any) -> Self:
        """The same with more options for every request of every model."""
        return self._mapped("bind", **options)

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Self:
        """The same with these tools for every model."""
        return self._mapped("bind_tools", tools, **options)

    def with_structured_output(self, schema: Any = None, **options: Any) -> Self:
        """The same with answers in this form. An answer without this form is an error, which starts another attempt."""
        return self._mapped("with_structured_output", schema, **options)

    # -- drivers: synchronous, and on an event loop -----------------------------------------------------------

    def _attempt(
        self, config: Mapping[str, Any] | None, call: Callable[[Any, dict[str, Any]], Any]
    ) -> Outcome:
        steps = self._steps(config)
        step, done = steps.step(), None
        while step is not None:
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                done = None
            else:
                done = self._outcome(step, call)
            step = steps.step(done)
        return steps.result

    async def _aattempt(
        self, config: Mapping[str, Any] | None, call: Callable[[Any, dict[str, Any]], Awaitable[Any]]
    ) -> Outcome:
        steps = self._steps(config)
        step, done = steps.step(), None
        while step is not None:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                done = None
            else:
                done = await self._aoutcome(step, call)
            step = steps.step(done)
        return steps.result

    def _outcome(self, attempt: Try, call: Callable[[Any, dict[str, Any]], Any]) -> Outcome:
        try:
            return Outcome(call(self._models[attempt.model_number], attempt.config))
        except BaseException as error:
            return Outcome(error=error)

    async def _aoutcome(self, attempt: Try, call: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> Outcome:
        try:
            return Outcome(await call(self._models[attempt.model_number], attempt.config))
        except BaseException as error:
            return Outcome(error=error)

    def _steps(self, config: Mapping[str, Any] | None) -> Trampoline[Try | Pause, Outcome]:
        return Trampoline(self._rules.steps(merge_configs(self._config, config or {})))

    def _mapped(self, method: str, *args: Any, **options: Any) -> Self:
        return self._copy(_models=[getattr(model, method)(*args, **options) for model in self._models])


def is_langchains(config: Any) -> bool:
    """Whether this is the config of a call by LangChain, whose callbacks are a manager."""
    callbacks = config.get("callbacks") if isinstance(config, Mapping) else None
    return type(callbacks).__module__.startswith("langchain_core.")


def _opened(model: Any, config: dict[str, Any], *, input: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The first chunk of a stream, and the rest."""
    chunks = iter(model.stream(input, config, **options))
    return next(chunks, _NO_CHUNK), chunks


async def _aopened(
    model: Any, config: dict[str, Any], *, input: Any, options: Mapping[str, Any]
) -> tuple[Any, Owned[Any]]:
    """`_opened` on an event loop."""
    chunks: Owned[Any] = Owned(model.astream(input, config, **options))
    try:
        return await anext(chunks), chunks
    except StopAsyncIteration:
        return _NO_CHUNK, chunks
