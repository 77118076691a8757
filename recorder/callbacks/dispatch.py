"""Calls the handlers of one run. Their methods are looked up once a run, so that a token costs little."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from recorder.callbacks.handler_results import HandlerMethod, Pending
from recorder.callbacks.handlers import BaseCallbackHandler
from recorder.errors import ConfigError
from recorder.messages import BaseMessage, ChatGenerationChunk, GenerationChunk, LLMResult
from recorder.wire.deltas import Delta

EVENTS = (
    "on_chat_model_start",
    "on_llm_start",
    "on_llm_new_token",
    "on_stream_frame",
    "on_chat_new_message",
    "on_llm_end",
    "on_llm_error",
)
#: The events of chains.
CHAIN_EVENTS = ("on_chain_start", "on_chain_end", "on_chain_error")
#: LangChain's flags, and the events that they switch off.
_IGNORED = {
    "ignore_llm": frozenset({"on_llm_start", "on_llm_new_token", "on_llm_end", "on_llm_error"}),
    "ignore_chain": frozenset(CHAIN_EVENTS),
}
#: The module of LangChain's empty methods.
_LANGCHAIN_BASE = "langchain_core.callbacks.base"
_PREFIXES = {"user": "Human", "assistant": "AI", "system": "System", "tool": "Tool"}


class Dispatch:
    """Calls the handlers of one run. Each method returns None, or what to `settle` before the run continues."""

    __slots__ = (
        "_calls", "_chat_start", "_frame", "_mask", "_metadata", "_parent_run_id", "_run_id", "_tags", "_takers",
        "_token", "wants_deltas", "wants_frames", "wants_mask", "wants_tokens",
    )  # fmt: skip

    def __init__(
        self,
        handlers: Iterable[Any],
        *,
        run_id: UUID | str,
        parent_run_id: UUID | str | None = None,
        tags: Iterable[str] = (),
        metadata: dict[str, Any] | None = None,
        mask: Any = None,
    ) -> None:
        """`mask` has the credentials of the run. Only handlers with `takes_mask` get it, which store data."""
        self._mask = mask
        #: Whether any handler takes the mask.
        self.wants_mask = False
        self._run_id = _uuid(run_id)
        self._parent_run_id = _uuid(parent_run_id) if parent_run_id else None
        self._tags = list(tags)
        self._metadata = metadata or {}
        self._calls: dict[str, list[HandlerMethod]] = {name: [] for name in EVENTS}
        self._chat_start: list[HandlerMethod] = []
        for handler in handlers:
            self._bind(handler)
        # The two that are called for each token.
        self._token = [(call.method, call) for call in self._calls["on_llm_new_token"]]
        self._frame = [(call.method, call) for call in self._calls["on_stream_frame"]]
        self._takers = [call for call in self._calls["on_stream_frame"] if _takes_tokens(call.handler)]
        #: Whether any handler takes its tokens from frames.
        self.wants_deltas = bool(self._takers)
        #: Whether any handler has `on_llm_new_token`.
        self.wants_tokens = bool(self._token)
        #: Whether any handler has `on_stream_frame`.
        self.wants_frames = bool(self._frame)

    def chat_model_start(
        self, serialized: dict[str, Any], messages: list[BaseMessage], **kwargs: Any
    ) -> list[Pending] | None:
        """A chat model starts with these messages."""
        return fire(self._chat_start, serialized, [messages], **self._start_fields(), **kwargs)

    def llm_start(
        self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any
    ) -> list[Pending] | None:
        """A completion model starts with these prompts."""
        return fire(self._calls["on_llm_start"], serialized, prompts, **self._start_fields(), **kwargs)

    def new_message(self, message: BaseMessage) -> list[Pending] | None:
        """A message is new to the conversation."""
        return fire(self._calls["on_chat_new_message"], message)

    def stream_frame(self, frame: bytes, at_us: int, deltas: Sequence[Delta]) -> list[Pending] | None:
        """A stream event arrived."""
        pending: list[Pending] | None = None
        for method, call in self._frame:
            try:
                result = method(frame, at_us, deltas, run_id=self._run_id)
            except Exception as error:
                call.failed(error, pending)
            else:
                if result is not None:
                    pending = call.add_result(result, pending)
        return pending

    def deltas(self, at_us: int, deltas: Sequence[Delta]) -> list[Pending] | None:
        """Deltas of a model without frames, for the handlers that take their tokens from frames."""
        return fire(self._takers, b"", at_us, deltas, run_id=self._run_id)

    def new_token(
        self, token: str, chunk: ChatGenerationChunk | GenerationChunk | None = None
    ) -> list[Pending] | None:
        """A token arrived."""
        pending: list[Pending] | None = None
        for method, call in self._token:
            try:
                # Written out: a partial or a dict of keywords takes twice as long.
                result = method(
                    token,
                    chunk=chunk,
                    run_id=self._run_id,
                    parent_run_id=self._parent_run_id,
                    tags=self._tags,
                )
            except Exception as error:
                call.failed(error, pending)
            else:
                if result is not None:
                    pending = call.add_result(result, pending)
        return pending

    def llm_end(self, result: LLMResult) -> list[Pending] | None:
        """The run ended."""
        return fire(self._calls["on_llm_end"], result, **self._fields())

    def llm_error(self, error: BaseException, response: LLMResult | None = None) -> list[Pending] | None:
        """The run failed or was cancelled. `response` has what had arrived before."""
        return fire(self._calls["on_llm_error"], error, response=response, **self._fields())

    def _fields(self) -> dict[str, Any]:
        return {"run_id": self._run_id, "parent_run_id": self._parent_run_id, "tags": self._tags}

    def _start_fields(self) -> dict[str, Any]:
        return {**self._fields(), "metadata": self._metadata}

    def _bind(self, handler: Any) -> None:
        names = events_of(handler)
        for name in names:
            if name == "on_llm_new_token" and _takes_tokens(handler):
                continue  # it gets them with the frames
            self._calls[name].append(HandlerMethod(handler, name, getattr(handler, name)))
        if (start := _chat_start(handler, names)) is not None:
            self._chat_start.append(start)
        if getattr(handler, "takes_mask", False) is True and self._mask is not None:
            self.wants_mask = True
            for start in (*self._chat_start[-1:], *self._calls["on_llm_start"][-1:]):
                if start.handler is handler:
                    start.method = partial(start.method, mask=self._mask)


def fire(calls: list[HandlerMethod], *args: Any, **kwargs: Any) -> list[Pending] | None:
    """Call these methods. Returns what to `settle`, or None."""
    pending: list[Pending] | None = None
    for call in calls:
        try:
            result = call.method(*args, **kwargs)
        except Exception as error:
            call.failed(error, pending)
        else:
            if result is not None:
                pending = call.add_result(result, pending)
    return pending


def _takes_tokens(handler: Any) -> bool:
    return getattr(handler, "tokens_from_frames", False) is True


def _uuid(id: UUID | str) -> UUID:
    return id if isinstance(id, UUID) else UUID(str(id))


def _chat_start(handler: Any, names: Sequence[str]) -> HandlerMethod | None:
    """What to call when a chat model starts: `on_chat_model_start`, else `on_llm_start` with the messages as text."""
    if getattr(handler, "ignore_chat_model", False) is True:
        return None
    as_text = partial(_start_as_text, handler.on_llm_start) if "on_llm_start" in names else None
    if "on_chat_model_start" in names:
        method = partial(_start_chat, handler.on_chat_model_start, as_text)
        return HandlerMethod(handler, "on_chat_model_start", method)
    return HandlerMethod(handler, "on_llm_start", as_text) if as_text else None


def _start_chat(
    method: Callable[..., Any], as_text: Callable[..., Any] | None, *args: Any, **kwargs: Any
) -> Any:
    """LangChain's rule: if the handler raises NotImplementedError, `on_llm_start` is called instead."""
    try:
        result = method(*args, **kwargs)
    except NotImplementedError:
        return as_text(*args, **kwargs) if as_text else None
    if inspect.iscoroutine(result):
        return _start_chat_later(result, as_text and partial(as_text, *args, **kwargs))
    return result


async def _start_chat_later(started: Any, as_text: Callable[[], Any] | None) -> None:
    try:
        await started
    except NotImplementedError:
        result = as_text() if as_text else None
        if inspect.isawaitable(result):
            await result


def _start_as_text(
    llm_start: Callable[..., Any],
    serialized: dict[str, Any],
    messages: list[list[BaseMessage]],
    **kwargs: Any,
) -> Any:
    return llm_start(serialized, [buffer_string(each) for each in messages], **kwargs)


def buffer_string(messages: Iterable[BaseMessage]) -> str:
    """The messages as one text with a line such as "Human: ..." for each, as LangChain's `get_buffer_string`."""
    return "\n".join(_line(message) for message in messages)


def _line(message: BaseMessage) -> str:
    calls = getattr(message, "tool_calls", None)
    return f"{_PREFIXES.get(message.role, message.role)}: {message.text}{calls or ''}"


def events_of(handler: Any, events: tuple[str, ...] = EVENTS) -> list[str]:
    """Those of the events that this handler handles: its methods, without the empty ones of a base class."""
    cls: type = type(handler)
    names = list(_events_of_class(cls, events))
    own = getattr(handler, "__dict__", None) or {}
    names += [name for name in events if name in own and name not in names]
    if hasattr(cls, "__getattr__"):
        names += [name for name in events if name not in names and _is_real(name, _found(handler, name))]
    for flag, ignored in _IGNORED.items():
        if getattr(handler, flag, False) is True:
            names = [name for name in names if name not in ignored]
    return names


@lru_cache(maxsize=512)
def _events_of_class(cls: type, events: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in events if _is_real(name, getattr(cls, name, None)))


def _found(handler: Any, name: str) -> Any:
    method = getattr(handler, name, None)
    return getattr(method, "__func__", method)


def _is_real(name: str, function: Any) -> bool:
    if not callable(function) or function is getattr(BaseCallbackHandler, name):
        return False
    return getattr(function, "__module__", None) != _LANGCHAIN_BASE


def handlers_from(callbacks: Any) -> list[Any]:
    """The handlers of `callbacks=`, each once. Raises `ConfigError` for what is not a handler.

    `callbacks` is None, one handler, a list of handlers, or a LangChain manager.
    """
    if callbacks is None:
        return []
    found = getattr(callbacks, "handlers", callbacks)
    handlers: list[Any] = []
    for handler in found if isinstance(found, (list, tuple, set)) else [found]:
        if not any(handler is other for other in handlers):
            handlers.append(_checked(handler))
    return handlers


def _checked(handler: Any) -> Any:
    if isinstance(handler, type):
        raise ConfigError(
            f"callbacks got the class {handler.__name__} where an instance is needed; pass {handler.__name__}(...)"
        )
    if not any(callable(getattr(handler, name, None)) for name in (*EVENTS, *CHAIN_EVENTS)):
        raise ConfigError(
            f"callbacks got {type(handler).__name__} {handler!r:.80}, which is not a handler: it has none of "
            f"{', '.join(EVENTS)}; subclass recorder.callbacks.BaseCallbackHandler"
        )
    return handler
