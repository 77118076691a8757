"""A chat model of your own: write how it answers, and the rest of a model is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, BaseMessage, messages_from, to_dict
from recorder.models.language_model import BaseLanguageModel
from recorder.models.run import Request
from recorder.models.sdk_stream import settle_async, settle_call, told, told_async
from recorder.models.simple_run import OwnRun
from recorder.models.thread_iterator import aside

_WHOLE, _STREAMS = ("_call", "_generate"), ("_stream",)
_ASYNC_WHOLE, _ASYNC_STREAMS = ("_agenerate",), ("_astream",)
#: What a body has beside the options of the call.
_ASKED = frozenset(("messages", "stream"))


class SimpleChatModel(BaseLanguageModel[AIMessage, AIMessageChunk]):
    """A chat model whose answers a subclass makes. It writes at least one of these methods, LangChain's:

    - `_call(messages, **options)` gives the answer's text, `_generate` the text, a message or a generation;
    - `_stream(messages, **options)` yields the answer in pieces: texts, messages or chunks;
    - `_agenerate` and `_astream` are the same, `async`.

    `options` are those of the model and of the call, `stop` among them where one was given. On an event loop a
    method that is not `async` runs on a thread; a model that only answers whole streams one chunk.
    """

    #: The name of the model, for the metadata and the `runs` table; `_llm_type` unless there is one.
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
        if not self._writes(*_WHOLE, *_STREAMS, *_ASYNC_WHOLE, *_ASYNC_STREAMS):
            raise ConfigError(
                f"{type(self).__name__} has no way to answer; write _call, _generate, _stream, _agenerate or _astream"
            )
        super().__init__(
            callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming, options=options
        )

    # -- what a subclass writes ---------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        """What kind of model it is, LangChain's word for it."""
        return type(self).__name__

    def _call(self, messages: list[BaseMessage], **options: Any) -> Any:
        """The whole text."""
        raise NotImplementedError

    def _generate(self, messages: list[BaseMessage], **options: Any) -> Any:
        """The whole answer: a str, an `AIMessage`, a generation, or a result with one."""
        return self._call(messages, **options)

    async def _agenerate(self, messages: list[BaseMessage], **options: Any) -> Any:
        """`_generate` on an event loop."""
        raise NotImplementedError

    def _stream(self, messages: list[BaseMessage], **options: Any) -> Iterable[Any]:
        """The answer's pieces: a str, an `AIMessageChunk` or a generation chunk each."""
        raise NotImplementedError

    def _astream(self, messages: list[BaseMessage], **options: Any) -> AsyncIterator[Any]:
        """`_stream` on an event loop."""
        raise NotImplementedError

    # -- one body of rules, two drivers -----------------------------------------------------------------------

    def _chunks(self, call: OwnRun) -> Generator[AIMessageChunk, None, None]:
        return self._said(call, self._answers_here(call.request))

    def _achunks(self, call: OwnRun) -> AsyncGenerator[AIMessageChunk, None]:
        return self._asaid(call, self._aanswers(call.request))

    def _said(
        self, call: OwnRun, answers: Generator[Any, None, None]
    ) -> Generator[AIMessageChunk, None, None]:
        """The chunks of an answer whose pieces are these."""
        with told(call), closing(answers) as pieces:
            for piece in pieces:
                chunk = call.say(piece)
                settle_call(call)
                yield chunk
            for chunk in call.rest():
                settle_call(call)
                yield chunk

    async def _asaid(
        self, call: OwnRun, answers: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """`_said` on an event loop."""
        async with told_async(call), aclosing(answers) as pieces:
            async for piece in pieces:
                chunk = call.say(piece)
                if call.pending:
                    await settle_async(call)
                yield chunk
            for chunk in call.rest():
                await settle_async(call)
                yield chunk

    def _answers_here(self, request: Request) -> Generator[Any, None, None]:
        """The answer without an event loop; what cannot be is part of the run, which fails of it."""
        self._require_sync()
        yield from self._answers(request)

    def _answers(self, request: Request) -> Generator[Any, None, None]:
        """The answer as synchronous code gets it: in pieces if it is to be streamed and can be, else whole."""
        options = self._options_asked(request)
        if self._writes(*_STREAMS) and (request.stream or not self._writes(*_WHOLE)):
            yield from self._stream(request.messages, **options)
        else:
            yield self._generate(request.messages, **options)

    async def _aanswers(self, request: Request) -> AsyncGenerator[Any, None]:
        """The same on an event loop; what is not `async` runs beside it."""
        options = self._options_asked(request)
        streams = request.stream or not self._writes(*_WHOLE, *_ASYNC_WHOLE)
        if streams and self._writes(*_ASYNC_STREAMS):
            pieces = self._astream(request.messages, **options)
        elif self._writes(*_ASYNC_WHOLE) and not (streams and self._writes(*_STREAMS)):
            yield await self._agenerate(request.messages, **options)
            return
        else:
            pieces = aside(self._answers(request))
        try:
            async for piece in pieces:
                yield piece
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()

    def _writes(self, *names: str) -> bool:
        """Whether a subclass has one of these methods."""
        return any(getattr(type(self), name) is not getattr(SimpleChatModel, name) for name in names)

    def _require_sync(self) -> None:
        if not self._writes(*_WHOLE, *_STREAMS):
            raise ConfigError(
                f"{type(self).__name__} answers only on an event loop; use ainvoke, astream, abatch or agenerate, "
                "or write _call or _stream as well"
            )

    # -- requests -----------------------------------------------------------------------------------------------

    def _input_of(self, input: Any) -> list[BaseMessage]:
        return messages_from(input)

    def _body(self, given: list[BaseMessage], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        said = {key: value for key, value in options.items() if value is not None}
        return {"model": self._name_of_model(), "messages": [to_dict(message) for message in given], **said}

    def _open_run(self, request: Request) -> OwnRun:
        return OwnRun(request)

    def _name_of_model(self) -> str:
        return self.model_name or self._llm_type

    def _options_asked(self, request: Request) -> dict[str, Any]:
        """What the subclass's method gets; the model's name only where the caller chose another."""
        options = {key: value for key, value in request.body.items() if key not in _ASKED}
        if options["model"] == self._name_of_model():
            del options["model"]
        return options

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **super()._ls_params(body),
            "ls_provider": self.provider_name or _provider_of(type(self).__name__),
        }


def _provider_of(name: str) -> str:
    """LangChain's rule: the class's name without Chat at either end, in lower case."""
    if name.startswith("Chat"):
        return name.removeprefix("Chat").lower()
    return name.removesuffix("Chat").lower()
