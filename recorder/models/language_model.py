"""The base class of all models: LangChain's methods, `invoke`, `stream`, `batch` and so on.

It has two subclasses: `SdkModel` asks a provider through its SDK, `SimpleChatModel` is a user's own model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from recorder.callbacks import handlers_from
from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError
from recorder.messages import BaseMessage, LLMResult, messages_from
from recorder.messages.convert import readable_messages
from recorder.models.attempts import attempt_of
from recorder.models.call_config import (
    combine_results,
    gather_all,
    merge_configs,
    merge_tags,
    metadata_of,
    parent_of,
    run_id_of,
    secrets_of,
)
from recorder.models.runnable import Runnable, is_langchains
from recorder.models.stream_events import Filter, check_version, end_event, start_event, stream_event
from recorder.redaction.credentials import secrets_in, shown
from recorder.redaction.masking import Mask
from recorder.runs.naming_headers import split_headers
from recorder.runs.open_streams import closed_at_exit
from recorder.runs.run import CHAT, ChunkT, Request, Run
from recorder.wire.request_hash import CONTENT_KEYS, TRANSPORT_KEYS, input_hash

#: Keys of a body that are left out of `invocation_params`. `stream_options` stay: they change what the stream holds.
_NOT_PARAMS = TRANSPORT_KEYS - {"stream_options"}

#: The names of the limit of tokens in the formats of providers.
_LIMIT_KEYS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

#: The type of the result of `invoke`.
AnswerT = TypeVar("AnswerT")


class BaseLanguageModel(Runnable, Generic[AnswerT, ChunkT]):
    """`invoke`, `stream`, `batch`, `generate`, their asynchronous forms, and `astream_events`.

    The input is a string, a message, or a list of messages, dicts or `(role, text)` pairs. `config` has LangChain's
    keys `callbacks`, `tags`, `metadata`, `run_id`, `run_name`, `max_concurrency`.
    """

    #: LangSmith's name of the provider, in `metadata["ls_provider"]`.
    provider_name: str = ""
    #: LangSmith's type of the model, in `metadata["ls_model_type"]`: "chat" or "llm".
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
        #: Options of every request. Options of a call override them.
        self.options = dict(options or {})

    # -- for each kind of model ---------------------------------------------------------------------------------

    @abstractmethod
    def _input_of(self, input: Any) -> Any:
        """The input in the form from which `_body` makes the body."""

    @abstractmethod
    def _body(self, prompt: Any, options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        """The body of the request: the input, the model and the options."""

    @abstractmethod
    def _open_run(self, request: Request) -> Run[ChunkT]:
        """A new run of this request."""

    @abstractmethod
    def _chunks(self, run: Any) -> Generator[ChunkT, None, None]:
        """Drive a run and yield its chunks as they arrive."""

    @abstractmethod
    def _achunks(self, run: Any) -> AsyncGenerator[ChunkT, None]:
        """`_chunks` on an event loop."""

    def _drive(self, run: Any) -> None:
        """Drive a run without yielding its chunks."""
        for _ in self._chunks(run):
            pass

    async def _adrive(self, run: Any) -> None:
        """`_drive` on an event loop."""
        async for _ in self._achunks(run):
            pass

    # -- LangChain's methods ------------------------------------------------------------------------------------

    def invoke(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> AnswerT:  # fmt: skip
        """Return the complete answer. With `streaming=True` the handlers get its tokens as they arrive."""
        run = self._new_run(input, config, self._with_stop(options, stop), stream=self.streaming)
        self._drive(run)
        answer: AnswerT = run.answer()
        return answer

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> AnswerT:  # fmt: skip
        """`invoke` on an event loop."""
        run = self._new_run(input, config, self._with_stop(options, stop), stream=self.streaming)
        await self._adrive(run)
        answer: AnswerT = run.answer()
        return answer

    def stream(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> Iterator[ChunkT]:  # fmt: skip
        """Yield the answer in chunks as they arrive. Leaving the loop early cancels the run."""
        run = self._new_run(input, config, self._with_stop(options, stop), stream=True)
        return closed_at_exit(self._chunks(run))

    def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, *, stop: list[str] | None = None, **options: Any
    ) -> AsyncIterator[ChunkT]:  # fmt: skip
        """`stream` on an event loop."""
        return self._achunks(self._new_run(input, config, self._with_stop(options, stop), stream=True))

    def generate(
        self, messages: Sequence[Any], stop: list[str] | None = None, callbacks: Any = None, **options: Any
    ) -> LLMResult:
        """One run for each list of messages. `llm_output` has the sum of their usages, also with `streaming=True`."""
        runs = self._new_runs(messages, stop, callbacks, options)
        for run in runs:
            self._drive(run)
        return combine_results([run.result() for run in runs])

    async def agenerate(
        self, messages: Sequence[Any], stop: list[str] | None = None, callbacks: Any = None, **options: Any
    ) -> LLMResult:
        """`generate` on an event loop. All runs are concurrent."""
        runs = self._new_runs(messages, stop, callbacks, options)
        await gather_all([self._adrive(run) for run in runs])
        return combine_results([run.result() for run in runs])

    async def astream_events(
        self, input: Any, config: Mapping[str, Any] | None = None, *, version: str = "v2",
        include_names: Sequence[str] | None = None, include_types: Sequence[str] | None = None,
        include_tags: Sequence[str] | None = None, exclude_names: Sequence[str] | None = None,
        exclude_types: Sequence[str] | None = None, exclude_tags: Sequence[str] | None = None, **options: Any,
    ) -> AsyncIterator[dict[str, Any]]:  # fmt: skip
        """Yield LangChain's events, version v2: a start, one for each chunk, an end.

        The `include_` and `exclude_` arguments are LangChain's. Raises `ConfigError` for another version.
        """
        check_version(version)
        run = self._new_run(input, config, options, stream=True)
        wanted = Filter(
            include_names, include_types, include_tags, exclude_names, exclude_types, exclude_tags
        ).wants(run.request)  # fmt: skip
        if wanted:
            yield start_event(run.request)
        received: list[ChunkT] = []
        async with Owned(self._achunks(run)) as chunks:
            async for chunk in chunks:
                received.append(chunk)
                if wanted:
                    yield stream_event(run.request, chunk)
        if wanted:
            yield end_event(run.request, run.merged(received))

    def __call__(  # type: ignore[override]  # LangChain's older form has arguments of its own
        self, messages: Any, stop: list[str] | None = None, callbacks: Any = None, *, config: Any = None,
        **options: Any,
    ) -> AnswerT:  # fmt: skip
        """LangChain's older form of `invoke`: `chat([HumanMessage("Hello!")])`.

        LangChain calls it with a `config` if the model is piped behind a prompt of its own, and gets a runnable.
        """
        if is_langchains(config):
            return self._in_langchain()  # type: ignore[no-any-return]
        given = config if config is not None else {"callbacks": callbacks}
        return self.invoke(messages, given, stop=stop, **options)

    def attached_handlers(self) -> list[Any]:
        """The handlers of every call of the model."""
        return handlers_from([*super().attached_handlers(), *self.callbacks])

    def bind(self, **options: Any) -> Self:
        """A copy of the model with more options for every request."""
        return self._copy(options={**self.options, **options})

    # -- requests -----------------------------------------------------------------------------------------------

    def _new_run(
        self, input: Any, config: Mapping[str, Any] | None, options: Mapping[str, Any], *, stream: bool
    ) -> Run[ChunkT]:
        config = merge_configs(self._config, config or {})
        options, named = self._without_names({**self.options, **options})
        given = metadata_of(config)
        stream = bool(options.pop("stream", None)) or stream
        messages, body, hash, error = self._request_parts(input, options, stream=stream)
        run_id, parent_run_id = run_id_of(config.get("run_id")), parent_of(config)
        attempt, first_run_id = attempt_of(config)
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
            metadata={**self._ls_params(body), **self._own_metadata(given, body), **given, **named},
            invocation_params={
                key: body[key] for key in body if key not in CONTENT_KEYS and key not in _NOT_PARAMS
            },
            input_hash=hash,
            run_id=run_id,
            parent_run_id=parent_run_id,
            model_type=self.model_type,
            mask=self._mask(config, options),
            attempt=attempt,
            first_run_id=first_run_id,
            host=self._host(),
            error=error,
        )
        return self._open_run(request)

    def _request_parts(
        self, input: Any, options: dict[str, Any], *, stream: bool
    ) -> tuple[list[BaseMessage], dict[str, Any], str, Exception | None]:
        """The messages, the body and the body's hash, and None.

        If the input is invalid: its readable messages, a body with the model's name only, "" and the error. The run
        then starts and fails with that error, so that recordings also show invalid requests.
        """
        try:
            prompt = self._input_of(input)
            body = self._body(prompt, options, stream=stream)
            return self._messages_of(prompt, body), body, input_hash(body), None
        except Exception as error:
            name = getattr(self, "model_name", None) or getattr(self, "model", None)
            return readable_messages(input), {"model": name}, "", error

    def _messages_of(self, prompt: Any, body: Mapping[str, Any]) -> list[BaseMessage]:
        """The messages of a request, for the handlers."""
        return messages_from(prompt)

    def _own_metadata(self, given: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata of all runs of the model. `given` is that of this one, which overrides them."""
        return self.metadata

    def _without_names(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The options without the headers that name a conversation and a user, and what these say."""
        if not isinstance(headers := options.get("extra_headers"), Mapping):
            return options, {}
        sent, named = split_headers(headers)
        return {**options, "extra_headers": sent}, named

    def _mask(self, config: Mapping[str, Any], options: Mapping[str, Any]) -> Mask:
        """A mask of the credentials that are known before the request is sent."""
        mask = self._mask_of(options)
        for name, value in secrets_of(config):
            mask.note(f"configurable.{name}", secrets_in(name, value))
        return mask

    def _mask_of(self, options: Mapping[str, Any]) -> Mask:
        """A mask of the credentials in the client's settings and in these options."""
        return Mask()

    def _new_runs(
        self, prompts: Sequence[Any], stop: list[str] | None, callbacks: Any, options: dict[str, Any]
    ) -> list[Run[ChunkT]]:
        if isinstance(prompts, str):
            raise ConfigError(f"generate takes a list of inputs, not the text {shown(prompts)}; pass [text]")
        config = {key: options.pop(key, None) for key in ("tags", "metadata", "run_name", "run_id")}
        options = self._with_stop(options, stop)
        if config["run_id"] is not None and len(prompts) > 1:
            raise ConfigError(f"run_id belongs to one run, but there are {len(prompts)} lists; leave it out")
        config["callbacks"] = callbacks
        return [self._new_run(prompt, config, options, stream=self.streaming) for prompt in prompts]

    def _with_stop(self, options: dict[str, Any], stop: list[str] | None) -> dict[str, Any]:
        return {**options, "stop": stop} if stop is not None else options

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """LangSmith's metadata of a run: provider, model, temperature, limit of tokens, stop sequences."""
        params = {
            "ls_provider": self.provider_name,
            "ls_model_name": body.get("model"),
            "ls_model_type": self.model_type,
            "ls_temperature": body.get("temperature"),
        }
        limit = next((body[key] for key in _LIMIT_KEYS if body.get(key)), None)
        if limit:
            params["ls_max_tokens"] = limit
        if body.get("stop"):
            params["ls_stop"] = body["stop"]
        return params

    def _host(self) -> str | None:
        """The host that requests go to; None without one."""
        return None

    def _serialized(self) -> dict[str, Any]:
        """The argument `serialized` of LangChain's handlers: the class and the name of the model, no credentials."""
        home = type(self).__module__.split(".")
        return {"lc": 1, "type": "not_implemented", "id": [*home, type(self).__name__], "name": self.name}
