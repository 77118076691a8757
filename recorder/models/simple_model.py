"""`SimpleChatModel`: a base class for your own chat model. A subclass writes only how the model answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from recorder.core.owned_generator import Owned
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, BaseMessage, messages_from, to_dict
from recorder.models.language_model import BaseLanguageModel
from recorder.models.simple_run import SimpleRun
from recorder.models.thread_iterator import iterate_on_thread
from recorder.runs.run import Request
from recorder.runs.sdk_stream import ReportingAsync, reporting, settle_run, settle_run_async

_SYNC_ANSWER, _SYNC_STREAM = ("_call", "_generate"), ("_stream",)
_ASYNC_ANSWER, _ASYNC_STREAM = ("_agenerate",), ("_astream",)
#: Keys of a body that are no options of the call.
_NOT_OPTIONS = frozenset(("messages", "stream"))


class SimpleChatModel(BaseLanguageModel[AIMessage, AIMessageChunk]):
    """A chat model whose answers a subclass makes. The subclass writes at least one of these methods of LangChain:

    - `_call(messages, **options)` returns the text; `_generate` returns a text, a message or a generation;
    - `_stream(messages, **options)` yields the answer in pieces: texts, messages or chunks;
    - `_agenerate` and `_astream` are the same, `async`.

    `options` are the options of the model and of the call, and `stop` if one was given. On an event loop a method
    that is not `async` runs on a thread. A model without `_stream` and `_astream` streams one chunk. Raises the
    exceptions of these methods unchanged, and `ConfigError` if none of them is written.
    """

    #: The model's name in the metadata and the `runs` table. None stands for `_llm_type`.
    model_name: str | None = None

    def __init__(
        self,
        *,
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        streaming: bool = False,
        **options: Any,
    ) -> None:
        if not self._overrides(*_SYNC_ANSWER, *_SYNC_STREAM, *_ASYNC_ANSWER, *_ASYNC_STREAM):
            raise ConfigError(
                f"{type(self).__name__} has no way to answer; write _call, _generate, _stream, _agenerate or _astream"
            )
        super().__init__(
            callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming, options=options
        )

    # -- what a subclass writes ---------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        """The type of the model: LangChain's property. By default the name of the class."""
        return type(self).__name__

    def _call(self, messages: list[BaseMessage], **options: Any) -> Any:
        """Return the complete text."""
        raise NotImplementedError

    def _generate(self, messages: list[BaseMessage], **options: Any) -> Any:
        """Return the complete answer: a str, an `AIMessage`, a generation, or a result with a generation."""
        return self._call(messages, **options)

    async def _agenerate(self, messages: list[BaseMessage], **options: Any) -> Any:
        """`_generate` on an event loop."""
        raise NotImplementedError

    def _stream(self, messages: list[BaseMessage], **options: Any) -> Iterable[Any]:
        """Yield the pieces of the answer. Each is a str, an `AIMessageChunk` or a generation chunk."""
        raise NotImplementedError

    def _astream(self, messages: list[BaseMessage], **options: Any) -> AsyncIterator[Any]:
        """`_stream` on an event loop."""
        raise NotImplementedError

    # -- drivers: synchronous, and on an event loop -----------------------------------------------------------

    def _chunks(self, run: SimpleRun) -> Generator[AIMessageChunk, None, None]:
        return self._chunks_of(run, self._sync_answers(run.request))

    def _achunks(self, run: SimpleRun) -> AsyncGenerator[AIMessageChunk, None]:
        return self._achunks_of(run, self._aanswers(run.request))

    def _chunks_of(
        self, run: SimpleRun, pieces: Generator[Any, None, None]
    ) -> Generator[AIMessageChunk, None, None]:
        """Drive a run whose answer consists of these pieces, and yield its chunks."""
        with reporting(run), closing(pieces):
            for piece in pieces:
                chunk = run.add_piece(piece)
                settle_run(run)
                yield chunk
            for chunk in run.rest():
                settle_run(run)
                yield chunk

    async def _achunks_of(
        self, run: SimpleRun, pieces: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """`_chunks_of` on an event loop."""
        async with ReportingAsync(run), Owned(pieces) as owned:
            async for piece in owned:
                chunk = run.add_piece(piece)
                if run.pending:
                    await settle_run_async(run)
                yield chunk
            for chunk in run.rest():
                await settle_run_async(run)
                yield chunk

    def _sync_answers(self, request: Request) -> Generator[Any, None, None]:
        """The pieces for synchronous code. If there is no method for that, the run starts and fails with the error."""
        self._require_sync()
        yield from self._answers(request)

    def _answers(self, request: Request) -> Generator[Any, None, None]:
        """The pieces from `_stream`, if it exists and streaming is wanted or is the only way; else from `_generate`."""
        options = self._method_options(request)
        if self._overrides(*_SYNC_STREAM) and (request.stream or not self._overrides(*_SYNC_ANSWER)):
            yield from self._stream(request.messages, **options)
        else:
            yield self._generate(request.messages, **options)

    async def _aanswers(self, request: Request) -> AsyncGenerator[Any, None]:
        """`_answers` on an event loop. Methods that are not `async` run on a thread."""
        options = self._method_options(request)
        streams = request.stream or not self._overrides(*_SYNC_ANSWER, *_ASYNC_ANSWER)
        if streams and self._overrides(*_ASYNC_STREAM):
            pieces = self._astream(request.messages, **options)
        elif self._overrides(*_ASYNC_ANSWER) and not (streams and self._overrides(*_SYNC_STREAM)):
            yield await self._agenerate(request.messages, **options)
            return
        else:
            pieces = iterate_on_thread(self._answers(request))
        async with Owned(pieces) as owned:
            async for piece in owned:
                yield piece

    def _overrides(self, *names: str) -> bool:
        """Whether the subclass has one of these methods."""
        return any(getattr(type(self), name) is not getattr(SimpleChatModel, name) for name in names)

    def _require_sync(self) -> None:
        if not self._overrides(*_SYNC_ANSWER, *_SYNC_STREAM):
            raise ConfigError(
                f"{type(self).__name__} answers only on an event loop; use ainvoke, astream, abatch or agenerate, "
                "or write _call or _stream as well"
            )

    # -- requests -----------------------------------------------------------------------------------------------

    def _input_of(self, input: Any) -> list[BaseMessage]:
        return messages_from(input)

    def _body(self, messages: list[BaseMessage], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        fields = {key: value for key, value in options.items() if value is not None}
        return {"model": self._body_model(), "messages": [to_dict(message) for message in messages], **fields}

    def _open_run(self, request: Request) -> SimpleRun:
        return SimpleRun(request)

    def _body_model(self) -> str:
        return self.model_name or self._llm_type

    def _method_options(self, request: Request) -> dict[str, Any]:
        """The options of the subclass's method. `model` is among them only if the caller chose another model."""
        options = {key: value for key, value in request.body.items() if key not in _NOT_OPTIONS}
        if options["model"] == self._body_model():
            del options["model"]
        return options

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **super()._ls_params(body),
            "ls_provider": self.provider_name or _provider_of(type(self).__name__),
        }


def _provider_of(name: str) -> str:
    """LangChain's rule: the name of the class without "Chat" at its start or end, in lower case."""
    if name.startswith("Chat"):
        return name.removeprefix("Chat").lower()
    return name.removesuffix("Chat").lower()
