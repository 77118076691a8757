"""`ChatHistoryCallback`: what a model says to its callbacks, said to the recorder."""

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

#: Metadata keys that name the conversation: ours, LangChain's sessions, LangGraph's threads.
CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id")
#: What a finish reason means -> the status of the run.
_STATUSES = {"good": COMPLETE, "limit": INCOMPLETE, "failure": INTERRUPTED, "unknown": INTERRUPTED}
#: Where a choice's metadata have its finish reason.
_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_CANCELS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt)
#: How many parents' conversations are remembered, so that child runs share one.
_MAX_FAMILIES = 10_000


class ChatHistoryCallback(BaseCallbackHandler):
    """Stores every message and token of the models it is attached to, while they stream.

    `url` is `sqlite:///file.db`; `RECORDER_URL`, else `sqlite:///chat_history.db`, unless given. Without a
    `conversation_id`, each run opens a conversation of its own. `options` are the fields of
    `recorder.config.Config`. Raises `ConfigError` for a value that can never work and `SchemaError` for tables
    that are not ours; once made it never raises into the application. On a running event loop it waits for
    nothing, and `async with` and `opened()` raise what the database says.
    """

    #: For LangChain: call the hooks where the model runs, not through an executor. It must never vary.
    run_inline = True
    #: Our models hand over frames with their deltas: the token hook, for models that do not, is not called as well.
    tokens_from_frames = True
    #: Our models hand over the credentials of a run, so that none of them is stored.
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
        # Looked up once: they are called for every token.
        self._runs = self.recorder.runs
        self._put = self.recorder.queue.put
        self._put_frame = self.recorder.queue.put_frame

    # -- the application's side ---------------------------------------------------------------------------

    @contextmanager
    def conversation(self, conversation_id: str) -> Iterator[str]:
        """Runs that begin inside belong to this conversation. Raises `ConfigError` for an id that cannot be."""
        token = self._current.set(check_conversation_id(conversation_id))
        try:
            yield conversation_id
        finally:
            self._current.reset(token)

    def add_messages(self, messages: Any, *, conversation_id: str | None = None) -> None:
        """Store messages that no model was called for, each below the newest one of its conversation.

        Each is whatever a model takes: a message, a text, a dict. The conversation is the one that is given, else
        that of `with history.conversation(...)`, else the recorder's own. They are in the queue when this returns;
        `flush()` waits until they are committed. Raises `ConfigError` for what is no message and without a
        conversation, `Closed` after `close`, and `StoreError` where the queue is full: on an event loop and with
        `overflow="drop_newest"` at once, else after `block_timeout`.
        """
        self.recorder.require_open()
        found = conversation_id
        if found is None:
            found = self._current.get() or self._conversation_id
        if found is None:
            raise ConfigError("Messages without a run need a conversation; pass conversation_id='...'")
        if said := [_as_it_is_now(message) for message in messages_from(messages)]:
            self.recorder.add(escape(check_conversation_id(found)), said)

    def opened(self) -> Wait[None]:
        """Over when the database is open: `.wait()` for it, or await it; at the latest after `open_timeout`.

        Off an event loop the constructor has waited for it. On one it waits for nothing: a `SchemaError`, and with
        `strict` what the database said, is raised here and by `async with`; it is in the log and in `stats()` too.
        """
        return self.recorder.opened()

    def flush(self) -> Wait[None]:
        """Over when everything handed over until now is committed: `.wait()` for it, or await it."""
        self.recorder.require_open()
        return self.recorder.flush()

    def close(self, timeout: float | None = None) -> Wait[Stats]:
        """Take nothing more and drain; over, with the last `stats()`, when all is stored."""
        return self.recorder.close(timeout)

    def stats(self) -> Stats:
        """Where the tokens are right now."""
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
        """A run begins, with the whole history that was sent."""
        history = [_as_said(message) for message in (messages[0] if messages else ())]
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
        """A wire event came: it is kept with its deltas. Returns what to wait for when the queue is full."""
        run = self._runs.get(run_id.int) or self.recorder.reopen(run_id.int)
        if run is None:
            self._late(len(deltas))
            return None
        run.has_frames = True
        kept = (
            frame if self._capture_frames and frame else None
        )  # a model of one's own has deltas without frames
        return self._put_frame(run, kept, deltas, at_us)

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any
    ) -> Wait[None] | None:
        """A token came; one of a run whose frames are recorded is recorded already."""
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
        """A run ended well, or as well as the provider let it."""
        end = _end_of_any(response)
        if mapping_of(getattr(response, "llm_output", None)).get("interrupted"):
            end.status = INTERRUPTED
        self._end(run_id, end)

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        """A run failed or was left; what had come is kept."""
        end = _end_of_any(response) if response is not None else RunEnd(ERROR, now())
        end.status, end.error_message = CANCELLED if isinstance(error, _CANCELS) else ERROR, None
        if end.status == ERROR:
            end.error_type, end.error_message = _name_of(type(error)), text_of(error)
            self._learn_from(error, run_id)
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

    def _learn_from(self, error: BaseException, run_id: UUID) -> None:
        """The request that an error speaks of carried credentials, which the provider may have repeated in it."""
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
        """The conversation of a run, and whether it is new with it. What is said closest to the call wins."""
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
        """Runs with the same parent share a conversation."""
        opened = new_id()
        # In one step: two children may begin at once, on two threads.
        shared = self._families.setdefault(str(parent_run_id), opened)
        if shared is not opened:
            return shared, False
        while len(self._families) > _MAX_FAMILIES:
            self._families.popitem(last=False)
        return opened, True

    def _late(self, tokens: int) -> None:
        """Tokens of a run that is not open: after its end, or after `close`."""
        self.recorder.queue.count_dropped(tokens)


def _end_of_any(response: Any) -> RunEnd:
    """The end as the result tells it; of one that cannot be read, that there was an end."""
    try:
        return _end_of(response)
    except Exception as error:
        log.warning("A run's result cannot be read, and nothing of it is stored but the end: %r", error)
        return RunEnd(COMPLETE, now())


def _end_of(response: LLMResult) -> RunEnd:
    """The end as the result tells it, its status by the finish reasons."""
    choices = _choices_of(response)
    replies = [getattr(choice, "message", None) or _as_message(choice) for choice in choices]
    infos = [{**mapping_of(getattr(reply, "response_metadata", None)), **mapping_of(choice.generation_info)}
             for choice, reply in zip(choices, replies, strict=True)]  # fmt: skip
    said = infos[0] if infos else {}
    output = mapping_of(response.llm_output)
    usage: Any = next(
        (found for reply in replies if (found := mapping_of(getattr(reply, "usage_metadata", None)))), None
    )
    raw = (
        (mapping_of(output.get("token_usage")) if output else None)
        or usage
        or found_in(output)
        or found_in(said)
    )
    if usage is None and raw and is_counted(raw):  # a completion is no message, which would say it
        usage = read(raw)
    reasons = [text_of(reason) for info in infos if (reason := _reason_of(info)) is not None]
    meaning, reason = worst_of(filter(is_reason, reasons))
    status = _STATUSES[meaning]
    return RunEnd(
        status=status,
        ended_at=now(),
        error_message=text_of(f"the answer ended with {reason!r}") if status == INTERRUPTED else None,
        finish_reason=text_of(_reason_of(said)),
        response_id=text_of(said.get("id") or output.get("id")),
        response_model=text_of(said.get("model_name") or said.get("model") or output.get("model_name")),
        input_tokens=usage and usage.get("input_tokens"),
        output_tokens=usage and usage.get("output_tokens"),
        total_tokens=usage and usage.get("total_tokens"),
        usage=escape_json(raw) if raw else None,
        usage_source="provider" if raw else "none",
        replies=[_as_said(reply) for reply in replies if _says_something(reply)],
    )


def _choices_of(response: Any) -> list[Any]:
    """The choices of the first prompt; none of what is no result."""
    generations = getattr(response, "generations", None)
    first = generations[0] if isinstance(generations, (list, tuple)) and generations else ()
    return list(first) if isinstance(first, (list, tuple)) else []


def _reason_of(info: Mapping[str, Any]) -> Any:
    """The finish reason of a choice; Ollama's and Bedrock's models of LangChain have names of their own for it."""
    return _first_of(info, _REASONS) if info else None


def _first_of(given: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """What stands under the first of these keys that has something; None without any."""
    for key in keys:
        if found := given.get(key):
            return found
    return None


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _as_said(message: Any) -> BaseMessage:
    try:
        said = from_any(message)
    except Exception as error:
        log.warning("A message is stored as text, for it is none that is known: %s", error)
        return ChatMessage(str(message), role="unknown")
    return _as_it_is_now(said)


def _as_it_is_now(said: BaseMessage) -> BaseMessage:
    """The application may go on to change its blocks before they are stored."""
    if isinstance(said.content, list):
        said = copy(said)
        said.content = [dict(block) if isinstance(block, dict) else block for block in said.content]
    return said


def _as_message(choice: Any) -> BaseMessage:
    return from_any(("assistant", choice.text))


def _says_something(reply: Any) -> bool:
    calls = getattr(reply, "tool_calls", None) or getattr(reply, "invalid_tool_calls", None)
    return bool(reply.content or calls or reply.additional_kwargs)
