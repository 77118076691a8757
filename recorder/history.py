"""`ChatHistoryCallback`: the callback handler that passes the events of a model to the recorder."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from datetime import timedelta
from time import perf_counter_ns
from types import TracebackType
from typing import Any
from uuid import UUID

from recorder.callbacks import BaseCallbackHandler
from recorder.config import Config
from recorder.core.clock import monotonic_us, now
from recorder.core.escaping import escape, escape_json
from recorder.core.ids import MAX_CONVERSATION_ID, check_conversation_id, new_id
from recorder.core.waitable import Wait
from recorder.errors import ConfigError
from recorder.messages import BaseMessage, ChatMessage, HumanMessage, LLMResult, from_any, messages_from
from recorder.recording.buffer import OpenRun
from recorder.recording.recorder import Recorder, Stats
from recorder.redaction.masking import Mask
from recorder.storage.fields import mapping_of, masked, storable, text_of
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED, RunEnd, RunStart
from recorder.storage.store import Store
from recorder.wire.deltas import Delta
from recorder.wire.finish_reasons import is_reason, worst_of
from recorder.wire.from_chunks import deltas_of
from recorder.wire.usage import found_in, is_counted, read

log = logging.getLogger("recorder")

#: Metadata keys for the conversation id: recorder's, LangChain's sessions, LangGraph's threads.
CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id")
#: Meaning of a finish reason -> status of the run.
_STATUSES = {"good": COMPLETE, "limit": INCOMPLETE, "failure": INTERRUPTED, "unknown": INTERRUPTED}
#: Keys of the finish reason in the metadata of a choice; Ollama's and Bedrock's models of LangChain use their own.
_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_CANCELS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)
#: The conversations of this many parent runs are remembered, so that their child runs share them.
_MAX_FAMILIES = 10_000


class ChatHistoryCallback(BaseCallbackHandler):
    """Stores every message and token of the models it is attached to, while they stream.

    `url` is the database, for example `sqlite:///file.db`; the default is `RECORDER_URL`, else
    `sqlite:///chat_history.db`. Without a `conversation_id`, each run opens a new conversation. `options` are the
    fields of `recorder.Config`. Raises `ConfigError` for an invalid value. The constructor waits for the database and
    raises `SchemaError` for tables that are not recorder's, and with `strict` the `StoreError` of a database that
    cannot be opened. On a running event loop it does not wait, and `async with` and `opened()` raise these errors.
    After that, recording never raises into the model's call.
    """

    #: For LangChain: call the hooks on the thread of the model, not through an executor. Always true.
    run_inline = True
    #: recorder's models pass frames with their deltas; `on_llm_new_token` is called only by models that do not.
    tokens_from_frames = True
    #: recorder's models pass the credentials of a run, so that they can be masked.
    takes_mask = True

    def __init__(
        self,
        url: str | None = None,
        *,
        conversation_id: str | None = None,
        store: Store | None = None,
        **options: Any,
    ) -> None:
        self._conversation_id = (
            check_conversation_id(conversation_id) if conversation_id is not None else None
        )
        try:
            config = Config(**options)
        except TypeError as error:
            raise ConfigError(f"{error}; the options are those of recorder.config.Config") from error
        self.recorder = Recorder(url, config, store=store)
        self._capture_frames = config.capture == "wire"
        self._current: ContextVar[str | None] = ContextVar("conversation_id", default=None)
        self._families: OrderedDict[str, str] = OrderedDict()
        # Attributes, because they are read for every token.
        self._runs = self.recorder.runs
        self._put = self.recorder.queue.put
        self._put_frame = self.recorder.queue.put_frame

    # -- the application's side ---------------------------------------------------------------------------

    @contextmanager
    def conversation(self, conversation_id: str) -> Iterator[str]:
        """Runs that begin in the `with` block belong to this conversation. Raises `ConfigError` for an invalid id."""
        token = self._current.set(check_conversation_id(conversation_id))
        try:
            yield conversation_id
        finally:
            self._current.reset(token)

    def add_messages(self, messages: Any, *, conversation_id: str | None = None) -> None:
        """Store messages without a run, each as the child of the newest message of the conversation.

        `messages` is what a model accepts: a text, a message, a dict, or a list of these. The conversation is
        `conversation_id`, else that of `with history.conversation(...)`, else that of the constructor. The messages are
        in the queue when this returns; `flush()` waits until they are committed. Raises `ConfigError` for what is not a
        message or if there is no conversation, `Closed` after `close`, and `StoreError` if the queue is full: at once
        on an event loop or with `overflow="drop_newest"`, else after `block_timeout` seconds.
        """
        self.recorder.require_open()
        found = conversation_id
        if found is None:
            found = self._current.get() or self._conversation_id
        if found is None:
            raise ConfigError("Messages without a run need a conversation; pass conversation_id='...'")
        if copies := [_copy_blocks(message) for message in messages_from(messages)]:
            self.recorder.add(escape(check_conversation_id(found)), copies)

    def opened(self) -> Wait[None]:
        """A `Wait` that ends when the database is open, or after `open_timeout` seconds: `.wait()` or await it.

        Without an event loop the constructor has waited already. On one, this and `async with` raise `SchemaError`, and
        with `strict` the `StoreError` of a database that cannot be opened. `stats()` and the log have the error too.
        """
        return self.recorder.opened()

    def flush(self) -> Wait[None]:
        """A `Wait` that ends when everything recorded before is committed: `.wait()` or await it. Raises `Closed`."""
        self.recorder.require_open()
        return self.recorder.flush()

    def close(self, timeout: float | None = None) -> Wait[Stats]:
        """Stop recording; open runs become `interrupted`. Returns a `Wait` for the last `stats()`.

        It ends when the queue is stored, or shortly after `timeout` seconds; the default is `close_timeout`.
        """
        return self.recorder.close(timeout)

    def stats(self) -> Stats:
        """Counts of tokens and runs by their state (queued, stored, dropped), and the state of the database."""
        return self.recorder.stats()

    def __enter__(self) -> ChatHistoryCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close().wait()

    async def __aenter__(self) -> ChatHistoryCallback:
        await self.opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the model's side ---------------------------------------------------------------------------------

    def on_chat_model_start(
        self, serialized: dict[str, Any] | None, messages: Sequence[Sequence[Any]], *, run_id: UUID,
        parent_run_id: UUID | None = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A run of a chat model begins. `messages` is all that was sent, as a list in a list."""
        history = [_message_from(message) for message in (messages[0] if messages else ())]
        self._start("chat", history, run_id, parent_run_id, tags, metadata or {}, kwargs)

    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: Sequence[str], *, run_id: UUID,
        parent_run_id: UUID | None = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A run of a completion model begins."""
        history: list[BaseMessage] = [HumanMessage(prompt) for prompt in prompts]
        self._start("text_completion", history, run_id, parent_run_id, tags, metadata or {}, kwargs)

    def on_stream_frame(
        self, frame: bytes, at_us: int, deltas: Sequence[Delta], *, run_id: UUID
    ) -> Wait[None] | None:
        """Record a stream event and its deltas. Returns a `Wait` for space if the queue is full."""
        run = self._runs.get(run_id.int) or self.recorder.reopen(run_id.int)
        if run is None:
            self._late(len(deltas))
            return None
        run.has_frames = True
        # A model without frames passes an empty one.
        stored = frame if self._capture_frames and frame else None
        return self._put_frame(run, stored, deltas, at_us)

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any
    ) -> Wait[None] | None:
        """Record a token, unless the run's tokens come with its frames. Returns a `Wait` if the queue is full."""
        run = self._runs.get(run_id.int) or self.recorder.reopen(run_id.int)
        if run is None:
            self._late(1)
            return None
        if run.has_frames:
            return None
        at_us = perf_counter_ns() // 1000 - run.started_us
        if chunk is None and type(token) is str:
            return self._put(run, token, at_us)
        return self._put_frame(run, None, deltas_of(token, chunk, run), at_us)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the end of a run. Its status depends on the finish reason."""
        end = _end_of_any(response)
        if mapping_of(getattr(response, "llm_output", None)).get("interrupted"):
            end.status = INTERRUPTED
        self._end(run_id, end)

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        """Record that a run failed or was cancelled. What had arrived before stays stored."""
        end = _end_of_any(response) if response is not None else RunEnd(ERROR, now())
        end.status, end.error_message = CANCELLED if isinstance(error, _CANCELS) else ERROR, None
        if end.status == ERROR:
            end.error_type, end.error_message = _name_of(type(error)), text_of(error)
            self._mask_request_of(error, run_id)
        self._end(run_id, end)

    # -- inside ---------------------------------------------------------------------------------------------

    def _start(
        self, operation: str, history: list[BaseMessage], run_id: UUID, parent_run_id: UUID | None,
        tags: Sequence[str] | None, metadata: Mapping[str, Any], given: Mapping[str, Any],
    ) -> OpenRun | None:  # fmt: skip
        if self.recorder.closed:
            return None
        metadata = mapping_of(metadata)
        conversation_id, fresh = self._conversation_of(metadata, parent_run_id)
        started_at, started_us = now(), monotonic_us()
        if begun_us := given.get("started_us"):
            started_at, started_us = started_at - timedelta(microseconds=started_us - begun_us), begun_us
        parameters = mapping_of(given.get("invocation_params"))
        mask: Mask = given.get("mask") or Mask()
        start = RunStart(
            run_id=str(run_id),
            conversation_id=conversation_id,
            fresh=fresh,
            started_at=started_at,
            operation=operation,
            parent_run_id=str(parent_run_id) if parent_run_id else None,
            provider_name=text_of(metadata.get("ls_provider")),
            request_model=text_of(metadata.get("ls_model_name") or parameters.get("model")),
            wire=text_of(given.get("wire")),
            request=mask.json(parameters, "request") if parameters else None,
            input_hash=text_of(given.get("input_hash")),
            tags=mask.json([tags] if isinstance(tags, str) else list(tags), "tags") if tags else None,
            metadata=mask.metadata(metadata),
            user_id=text_of(metadata.get("user_id")),
            mask=mask,
            messages=history,
        )
        return self.recorder.start(run_id.int, start, started_us)

    def _mask_request_of(self, error: BaseException, run_id: UUID) -> None:
        """Mask the credentials of the error's request, which the provider may have repeated in the error."""
        run = self._runs.get(run_id.int)
        request = getattr(getattr(error, "response", None), "request", None) or getattr(
            error, "request", None
        )
        if run is not None and run.start.mask is not None and request is not None:
            run.start.mask.learn_request(request)

    def _end(self, run_id: UUID, end: RunEnd) -> None:
        run = self._runs.get(run_id.int)
        mask = run.start.mask if run is not None else None
        end = storable(end, run_id)
        self.recorder.end(run_id.int, masked(end, mask) if mask is not None else end)

    def _conversation_of(self, metadata: Mapping[str, Any], parent_run_id: UUID | None) -> tuple[str, bool]:
        """The conversation id of a run, and whether the conversation is new. The most specific setting wins."""
        found = _first_of(metadata, CONVERSATION_KEYS) if metadata else None
        if found is not None and len(str(found)) > MAX_CONVERSATION_ID:
            self.recorder.replaced_ids += 1
            log.warning("A conversation id of %d characters was replaced by a new one", len(str(found)))
            return new_id(), True
        found = found or self._current.get() or self._conversation_id
        if found is not None:
            return escape(str(found)), False
        return self._family_of(parent_run_id) if parent_run_id is not None else (new_id(), True)

    def _family_of(self, parent_run_id: UUID) -> tuple[str, bool]:
        """The conversation that all runs with this parent share, and whether it is new."""
        opened = new_id()
        # One atomic call: two children may begin at the same time on two threads.
        shared = self._families.setdefault(str(parent_run_id), opened)
        if shared is not opened:
            return shared, False
        while len(self._families) > _MAX_FAMILIES:
            self._families.popitem(last=False)
        return opened, True

    def _late(self, tokens: int) -> None:
        """Count tokens that arrived after the end of their run or after `close`; they are not stored."""
        self.recorder.queue.count_dropped(tokens)


def _end_of_any(response: Any) -> RunEnd:
    """The end of a run from its result. If the result cannot be read, an end with the status only."""
    try:
        return _end_of(response)
    except Exception as error:
        log.warning("Cannot read the result of a run; only its end is stored: %r", error)
        return RunEnd(COMPLETE, now())


def _end_of(response: LLMResult) -> RunEnd:
    """The end of a run from its result. The worst finish reason of its choices decides the status."""
    choices = _choices_of(response)
    replies = [getattr(choice, "message", None) or _as_message(choice) for choice in choices]
    infos = [{**mapping_of(getattr(reply, "response_metadata", None)), **mapping_of(choice.generation_info)}
             for choice, reply in zip(choices, replies, strict=True)]  # fmt: skip
    first = infos[0] if infos else {}
    output = mapping_of(response.llm_output)
    usage: Any = next(
        (found for reply in replies if (found := mapping_of(getattr(reply, "usage_metadata", None)))), None
    )
    raw = (
        (mapping_of(output.get("token_usage")) if output else None)
        or usage
        or found_in(output)
        or found_in(first)
    )
    if usage is None and raw and is_counted(raw):  # a completion, which has no message with usage_metadata
        usage = read(raw)
    reasons = [text_of(reason) for info in infos if (reason := _reason_of(info)) is not None]
    meaning, reason = worst_of(filter(is_reason, reasons))
    status = _STATUSES[meaning]
    return RunEnd(
        status=status,
        ended_at=now(),
        error_message=text_of(f"the answer ended with {reason!r}") if status == INTERRUPTED else None,
        finish_reason=text_of(_reason_of(first)),
        response_id=text_of(first.get("id") or output.get("id")),
        response_model=text_of(first.get("model_name") or first.get("model") or output.get("model_name")),
        input_tokens=usage and usage.get("input_tokens"),
        output_tokens=usage and usage.get("output_tokens"),
        total_tokens=usage and usage.get("total_tokens"),
        usage=escape_json(raw) if raw else None,
        usage_source="provider" if raw else "none",
        replies=[_message_from(reply) for reply in replies if _has_content(reply)],
    )


def _choices_of(response: Any) -> list[Any]:
    """The choices of the first prompt. Empty if the response is not an `LLMResult`."""
    generations = getattr(response, "generations", None)
    first = generations[0] if isinstance(generations, (list, tuple)) and generations else ()
    return list(first) if isinstance(first, (list, tuple)) else []


def _reason_of(info: Mapping[str, Any]) -> Any:
    return _first_of(info, _REASONS) if info else None


def _first_of(given: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The first true value under these keys, or None."""
    for key in keys:
        if found := given.get(key):
            return found
    return None


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message_from(value: Any) -> BaseMessage:
    try:
        message = from_any(value)
    except Exception as error:
        log.warning("A message of an unknown type is stored as text: %s", error)
        return ChatMessage(str(value), role="unknown")
    return _copy_blocks(message)


def _copy_blocks(message: BaseMessage) -> BaseMessage:
    """A copy with copied content blocks, because the application may change them before they are stored."""
    if isinstance(message.content, list):
        message = copy(message)
        message.content = [dict(block) if isinstance(block, dict) else block for block in message.content]
    return message


def _as_message(choice: Any) -> BaseMessage:
    return from_any(("assistant", choice.text))


def _has_content(reply: Any) -> bool:
    calls = getattr(reply, "tool_calls", None) or getattr(reply, "invalid_tool_calls", None)
    return bool(reply.content or calls or reply.additional_kwargs)
