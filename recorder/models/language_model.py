"""What all models share: LangChain's surface over one body of rules, however a model comes to its answers.

Two kinds stand on it: those over a provider's SDK (`sdk.py`), and a user's own (`simple.py`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, Self, TypeVar

from recorder.callbacks import handlers_from
from recorder.errors import ConfigError
from recorder.messages import BaseMessage, LLMResult, messages_from
from recorder.models.call_config import (
    combine_results,
    config_per_input,
    gather_all,
    merge_tags,
    metadata_of,
    parent_of,
    readable_messages,
    returning_errors,
    run_id_of,
    secrets_of,
)
from recorder.models.events import Filter, end_event, start_event, stream_event
from recorder.models.open_streams import closed_at_exit
from recorder.models.run import CHAT, ChunkT, Request, Run
from recorder.redaction.credentials import secrets_in
from recorder.redaction.masking import Mask
from recorder.wire.request_hash import SAID, TRAVEL, input_hash

#: What handlers are not told of how a request travels; that usage is asked for shows in the stream.
_NOT_KEPT = TRAVEL - {"stream_options"}

#: What `invoke` gives.
AnswerT = TypeVar("AnswerT")


class BaseLanguageModel(ABC, Generic[AnswerT, ChunkT]):
    """`invoke`, `stream`, `batch`, `generate`, their asynchronous forms, and `astream_events`.

    Input is a string, a message, a list of messages, dicts or `(role, text)` pairs. `config` has LangChain's keys
    `callbacks`, `tags`, `metadata`, `run_id`, `run_name`, `max_concurrency`.
    """

    #: LangSmith's word for the provider, in `metadata["ls_provider"]`.
    provider_name: str = ""
    #: LangSmith's word for the kind of model, in `metadata["ls_model_type"]`: chat or llm.
    model_type: str = CHAT

    def __init__(
        self,
        *,
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        streaming: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.callbacks = handlers_from(callbacks)
        self.tags = list(tags or ())
        self.metadata = dict(metadata or {})
        self.name = name or type(self).__name__
        self.streaming = streaming
        #: Options of every request; those of a call come on top.
        self.options = dict(options or {})

    # -- what a kind of model says ------------------------------------------------------------------------------

    @abstractmethod
    def _input_of(self, input: Any) -> Any:
        """The input as the body is made of it."""

    @abstractmethod
    def _body(self, given: Any, options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        """All that is asked: the input, the model, the options."""

    @abstractmethod
    def _open_run(self, request: Request) -> Run[ChunkT]:
        """A new run."""

    @abstractmethod
    def _chunks(self, call: Any) -> Generator[ChunkT, None, None]:
        """Drive a run, and give its chunks as they come."""

    @abstractmethod
    def _achunks(self, call: Any) -> AsyncGenerator[ChunkT, None]:
        """`_chunks` on an event loop."""

    def _drive(self, call: Any) -> None:
        """Drive a run whose chunks nobody wants."""
        for _ in self._chunks(call):
            pass

    async def _adrive(self, call: Any) -> None:
        """`_drive` on an event loop."""
        async for _ in self._achunks(call):
            pass

    # -- LangChain's surface ------------------------------------------------------------------------------------

    def invoke(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> AnswerT:  # fmt: skip
        """The whole answer. With `streaming=True` the callbacks get its tokens as they come."""
        call = self._new_run(input, config, self._with_stop(options, stop), stream=self.streaming)
        self._drive(call)
        answer: AnswerT = call.answer()
        return answer

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> AnswerT:  # fmt: skip
        """`invoke` on an event loop."""
        call = self._new_run(input, config, self._with_stop(options, stop), stream=self.streaming)
        await self._adrive(call)
        answer: AnswerT = call.answer()
        return answer

    def stream(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> Iterator[ChunkT]:  # fmt: skip
        """The answer in chunks as they come; leaving the loop early cancels the run."""
        call = self._new_run(input, config, self._with_stop(options, stop), stream=True)
        return closed_at_exit(self._chunks(call))

    def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> AsyncIterator[ChunkT]:  # fmt: skip
        """`stream` on an event loop."""
        return self._achunks(self._new_run(input, config, self._with_stop(options, stop), stream=True))

    def batch(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **options: Any
    ) -> list[Any]:
        """`invoke` for each input, in threads, at most `config["max_concurrency"]` at a time, in order."""
        each = config_per_input(config, len(inputs))
        if not inputs:
            return []
        work = partial(returning_errors(self.invoke) if return_exceptions else self.invoke, **options)
        with ThreadPoolExecutor(each[0].get("max_concurrency") or None) as pool:
            futures = [
                pool.submit(copy_context().run, work, input, its_config)
                for input, its_config in zip(inputs, each, strict=True)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # Nobody will see the answers of those that have not begun.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    async def abatch(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **options: Any
    ) -> list[Any]:
        """`ainvoke` for each input, at most `config["max_concurrency"]` at a time, in order."""
        each = config_per_input(config, len(inputs))
        limit = asyncio.Semaphore((each[0].get("max_concurrency") if each else None) or 2**31)

        async def one(input: Any, its_config: dict[str, Any]) -> AnswerT:
            async with limit:
                return await self.ainvoke(input, its_config, **options)

        work = [one(input, its_config) for input, its_config in zip(inputs, each, strict=True)]
        return await gather_all(work, return_exceptions=return_exceptions)

    def generate(
        self, messages: Sequence[Any], stop: list[str] | None = None, callbacks: Any = None, **options: Any
    ) -> LLMResult:
        """One run for each list of messages; `llm_output` has the usage of all, when streaming too."""
        calls = self._new_runs(messages, stop, callbacks, options)
        for call in calls:
            self._drive(call)
        return combine_results([call.result() for call in calls])

    async def agenerate(
        self, messages: Sequence[Any], stop: list[str] | None = None, callbacks: Any = None, **options: Any
    ) -> LLMResult:
        """`generate` on an event loop, all lists at once."""
        calls = self._new_runs(messages, stop, callbacks, options)
        await gather_all([self._adrive(call) for call in calls])
        return combine_results([call.result() for call in calls])

    async def astream_events(
        self, input: Any, config: Mapping[str, Any] | None = None, *, version: str = "v2",
        include_names: Sequence[str] | None = None, include_types: Sequence[str] | None = None,
        include_tags: Sequence[str] | None = None, exclude_names: Sequence[str] | None = None,
        exclude_types: Sequence[str] | None = None, exclude_tags: Sequence[str] | None = None, **options: Any,
    ) -> AsyncIterator[dict[str, Any]]:  # fmt: skip
        """The run as LangChain's events, version v2: start, one for each chunk, end."""
        if version != "v2":
            raise ConfigError(f"astream_events has no version {version!r} here; pass version='v2'")
        call = self._new_run(input, config, options, stream=True)
        wanted = Filter(
            include_names, include_types, include_tags, exclude_names, exclude_types, exclude_tags
        ).wants(call.request)  # fmt: skip
        if wanted:
            yield start_event(call.request)
        said: list[ChunkT] = []
        async with aclosing(self._achunks(call)) as chunks:
            async for chunk in chunks:
                said.append(chunk)
                if wanted:
                    yield stream_event(call.request, chunk)
        if wanted:
            yield end_event(call.request, call.merged(said))

    def __call__(
        self, messages: Any, stop: list[str] | None = None, callbacks: Any = None, **options: Any
    ) -> AnswerT:
        """The answer to some messages: `chat([HumanMessage("Hello!")])`."""
        return self.invoke(messages, {"callbacks": callbacks}, stop=stop, **options)

    def bind(self, **options: Any) -> Self:
        """The same model with options that go with every request."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.options = {**self.options, **options}
        return other

    # -- requests -----------------------------------------------------------------------------------------------

    def _new_run(
        self, input: Any, config: Mapping[str, Any] | None, options: Mapping[str, Any], *, stream: bool
    ) -> Run[ChunkT]:
        config = config or {}
        options = {**self.options, **options}
        stream = bool(options.pop("stream", None)) or stream
        messages, body, hash, error = self._asked(input, options, stream=stream)
        request = Request(
            input=input,
            serialized=self._serialized(),
            provider_name=self.provider_name,
            messages=messages,
            body=body,
            stream=stream,
            handlers=handlers_from([*handlers_from(config.get("callbacks")), *self.callbacks]),
            name=config.get("run_name") or self.name,
            tags=merge_tags(config.get("tags"), self.tags),
            metadata={**self._ls_params(body), **self.metadata, **metadata_of(config)},
            invocation_params={key: body[key] for key in body if key not in SAID and key not in _NOT_KEPT},
            input_hash=hash,
            run_id=run_id_of(config.get("run_id")),
            parent_run_id=parent_of(config),
            model_type=self.model_type,
            mask=self._mask(config, options),
            error=error,
        )
        return self._open_run(request)

    def _asked(
        self, input: Any, options: dict[str, Any], *, stream: bool
    ) -> tuple[list[BaseMessage], dict[str, Any], str, Exception | None]:
        """The messages, the body and its hash; where they cannot be made, what can be read, and why.

        Then there is a run all the same, which fails of the error: whoever records sees what was asked in vain.
        """
        try:
            given = self._input_of(input)
            body = self._body(given, options, stream=stream)
            return messages_from(given), body, input_hash(body), None
        except Exception as error:
            name = getattr(self, "model_name", None) or getattr(self, "model", None)
            return readable_messages(input), {"model": name}, "", error

    def _mask(self, config: Mapping[str, Any], options: Mapping[str, Any]) -> Mask:
        """What is known of the credentials of a run before its request is sent."""
        mask = self._mask_of(options)
        for name, value in secrets_of(config):
            mask.note(f"configurable.{name}", secrets_in(name, value))
        return mask

    def _mask_of(self, options: Mapping[str, Any]) -> Mask:
        """A mask of the credentials that a request with these options carries, as far as they are known."""
        return Mask()

    def _new_runs(
        self, prompts: Sequence[Any], stop: list[str] | None, callbacks: Any, options: dict[str, Any]
    ) -> list[Run[ChunkT]]:
        if isinstance(prompts, str):
            raise ConfigError(f"generate takes a list of inputs, not the text {prompts[:80]!r}; pass [text]")
        config = {key: options.pop(key, None) for key in ("tags", "metadata", "run_name", "run_id")}
        options = self._with_stop(options, stop)
        if config["run_id"] is not None and len(prompts) > 1:
            raise ConfigError(f"run_id names one run, but there are {len(prompts)} lists; leave it out")
        config["callbacks"] = callbacks
        return [self._new_run(prompt, config, options, stream=self.streaming) for prompt in prompts]

    def _with_stop(self, options: dict[str, Any], stop: list[str] | None) -> dict[str, Any]:
        return {**options, "stop": stop} if stop is not None else options

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata that LangSmith reads, and so everybody: provider, model, temperature, limits."""
        said = {
            "ls_provider": self.provider_name,
            "ls_model_name": body.get("model"),
            "ls_model_type": self.model_type,
            "ls_temperature": body.get("temperature"),
        }
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        if limit:
            said["ls_max_tokens"] = limit
        if body.get("stop"):
            said["ls_stop"] = body["stop"]
        return said

    def _serialized(self) -> dict[str, Any]:
        """What LangChain's handlers get as `serialized`: what the model is, without any secret."""
        home = type(self).__module__.split(".")
        return {"lc": 1, "type": "not_implemented", "id": [*home, type(self).__name__], "name": self.name}
