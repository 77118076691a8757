"""`ChatHistoryCallback`: the callback handler that passes the events of a model to the recorder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from time import perf_counter_ns
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from recorder.analysis.configured import analysis_of
from recorder.callbacks.outside_langchain import OutsideLangChain
from recorder.config import Config
from recorder.core.clock import begun
from recorder.core.collection import collection
from recorder.core.escaping import escape
from recorder.core.ids import check_conversation_id
from recorder.core.waitable import Wait
from recorder.errors import ConfigError, RecorderError
from recorder.messages import BaseMessage, LLMResult, messages_from
from recorder.recording.application_values import annotation, details_of, other_runs_in, user_id_of
from recorder.recording.buffer import OpenRun
from recorder.recording.conversation_naming import ConversationNaming, Names
from recorder.recording.given_ids import GivenIds
from recorder.recording.message_copies import prompts_from, request_from, with_own_blocks
from recorder.recording.redacting_recorder import recorder_for
from recorder.recording.run_end import end_of_error, end_of_result
from recorder.recording.stats import Stats
from recorder.recording.step_hooks import StepHooks
from recorder.recording.steps import OpenSteps
from recorder.redaction.masking import Mask
from recorder.storage.rows import RunEnd, RunStart
from recorder.storage.storable_values import (
    first_text,
    id_of,
    list_of,
    mapping_of,
    masked,
    storable,
    text_of,
)
from recorder.storage.store_interface import Store
from recorder.wire.deltas import Delta
from recorder.wire.from_chunks import deltas_of, has_only_text

log = logging.getLogger("recorder")

F = TypeVar("F", bound=Callable[..., Any])

#: The name of annotations that are a user's judgement.
FEEDBACK = "user_feedback"


class ChatHistoryCallback(StepHooks, OutsideLangChain):
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
        self, url: str | None = None, *, conversation_id: str | None = None, store: Store | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        default = check_conversation_id(conversation_id) if conversation_id is not None else None
        try:
            config = Config(**options)
        except TypeError as error:
            raise ConfigError(f"{error}; the options are those of recorder.config.Config") from error
        self._naming = ConversationNaming(default, config.thread, timedelta(seconds=config.thread_within))
        self.analysis = analysis_of(config)
        self.recorder = recorder_for(url, config, store)
        #: Whether what is stored cannot be read at the recorder's URL: the caller has passed a store, and no URL.
        self.stores_elsewhere = store is not None and url is None
        #: Attached clients queue the bytes of a response, and the writer's thread translates them.
        self.takes_bytes = not config.redact
        self._capture_frames = config.capture == "wire"
        self._ids = GivenIds()
        self._steps = OpenSteps()
        if self.analysis is not None:
            self.analysis.store_with(self.recorder.annotate)
            self.recorder.listeners.add(self.analysis)
        # Attributes, because they are read for every token.
        self._runs = self.recorder.runs
        self._put = self.recorder.queue.put
        self._put_frame = self.recorder.queue.put_frame

    # -- the application's side ---------------------------------------------------------------------------

    @contextmanager
    def conversation(
        self, conversation_id: str, user: str | None = None, *, title: str | None = None,
        tags: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Runs that begin in the `with` block belong to this conversation, and to this user if one is given.

        `title`, `tags` and `metadata` are stored with the conversation, as `update_conversation` does, but without its
        errors: a full queue is logged. If the conversation belongs to another user, these runs are stored as a
        conversation of their own, "id@user". Raises `ConfigError` for an invalid value.
        """
        names = Names(check_conversation_id(conversation_id), self._user_id(user))
        details = details_of(title, tags, metadata)
        with self._naming.within(names):
            self._set_details(details)
            yield conversation_id

    @property
    def names(self) -> Names:
        """The `conversation_id` and the `user_id` of runs that begin here and name none; None for unknown."""
        return self._naming.names

    @contextmanager
    def user(self, user: str) -> Iterator[str]:
        """Runs that begin in the `with` block belong to this user. Raises `ConfigError` for an invalid id."""
        with self._naming.within(self._naming.names._replace(user_id=self._user_id(user))):
            yield user

    def bind(self, function: F) -> F:
        """A function that calls `function` in the conversation and for the user of the code that calls `bind`.

        For threads, executors and schedulers that run it in another context. Also for coroutine functions, generator
        functions and asynchronous generator functions.
        """
        return self._naming.bind(function)

    def update_conversation(
        self, conversation_id: str | None = None, *, title: str | None = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Set the title, the tags or the metadata of a conversation, whole. What is None stays as it is.

        The conversation need not exist yet; without an id it is that of the code around the call. The rest is as with
        `add_messages`.
        """
        if details := details_of(title, tags, metadata):
            self._add(conversation_id, details=details)

    def add_messages(self, messages: Any, *, conversation_id: str | None = None) -> None:
        """Store messages without a run, each as the child of the newest message of the conversation.

        `messages` is what a model accepts: a text, a message, a dict, or a list of these. The conversation is
        `conversation_id`, else that of `with history.conversation(...)`, else that of the constructor. The messages are
        in the queue when this returns; `flush()` waits until they are committed. Raises `ConfigError` for what is not a
        message or if there is no conversation, `Closed` after `close`, and `StoreError` if the queue is full: at once
        on an event loop or with `overflow="drop_newest"`, else after `block_timeout` seconds.
        """
        copies = [with_own_blocks(message) for message in messages_from(messages)]
        self._add(conversation_id, copies)

    def add_annotation(
        self, run_id: UUID | str, name: str, *, label: str | None = None, score: float | None = None,
        data: Mapping[str, Any] | None = None, message_id: UUID | str | None = None,
    ) -> str:  # fmt: skip
        """Store an evaluation of a run, or of one of its messages. Returns the annotation's id.

        `run_id` is that of the call's `config`, or the `id` of the model's message. `name` says what was evaluated,
        `label` and `score` the result; `data` is stored as JSON. The fields are OpenTelemetry's `gen_ai.evaluation.*`.
        A run may have several annotations of one name. Raises as `add_messages` does.
        """
        row = annotation(run_id, name, label=label, score=score, data=data, message_id=message_id)
        self.recorder.require_open()
        self.recorder.annotate(row)
        return row.id

    def add_feedback(
        self, run_id: UUID | str, *, score: float | None = None, label: str | None = None,
        comment: str | None = None,
    ) -> str:  # fmt: skip
        """Store a user's judgement of a run: an annotation with the name "user_feedback". Returns its id.

        `comment` is in its `data`, and so is the user of `with history.user(...)`.
        """
        data = {"comment": comment, "user_id": self._naming.names.user_id}
        given = {key: value for key, value in data.items() if value is not None}
        if score is None and label is None and comment is None:
            raise ConfigError("The feedback says nothing; pass score=, label= or comment=")
        return self.add_annotation(run_id, FEEDBACK, label=label, score=score, data=given)

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
        closing = self.close()
        if not collection.runs_here:  # the thread may hold a lock that the writer waits for
            closing.wait()

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
        self._start("chat", request_from(messages), run_id, parent_run_id, tags, metadata, kwargs)

    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: Sequence[str], *, run_id: UUID,
        parent_run_id: UUID | None = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A run of a completion model begins."""
        self._start("text_completion", prompts_from(prompts), run_id, parent_run_id, tags, metadata, kwargs)

    def on_stream_frame(
        self, frame: bytes, at_us: int, deltas: Sequence[Delta], *, run_id: UUID
    ) -> Wait[None] | None:
        """Record a stream event and its deltas. Returns a `Wait` for space if the queue is full."""
        # As in `on_llm_new_token`: one function for both would be one more call for each token.
        try:
            key = run_id.int
        except AttributeError:  # another framework's id
            key = id_of(run_id).int
        run = self._runs.get(key) or self.recorder.reopen(key)
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
        try:
            key = run_id.int
        except AttributeError:  # another framework's id
            key = id_of(run_id).int
        run = self._runs.get(key) or self.recorder.reopen(key)
        if run is None:
            self._late(1)
            return None
        if run.has_frames:
            return None
        at_us = perf_counter_ns() // 1000 - run.started_us
        if type(token) is str and (chunk is None or (token and has_only_text(chunk))):
            return self._put(run, token, at_us)
        return self._put_frame(run, None, deltas_of(token, chunk, run), at_us)

    def loses(self, run_id: UUID) -> bool:
        """Whether nothing of a run that has begun is stored: the recorder is closed, or its queue was full."""
        run = self.recorder.find(run_id.int)
        return run is None or run.lost

    def on_stream_bytes_end(self, *, run_id: UUID, at_us: int, order: int, cut: bool = False) -> None:
        """The last bytes of a run came at this time (monotonic microseconds). `cut`: the queue was full for some."""
        if (run := self.recorder.find(run_id.int)) is not None:
            self.recorder.queue.end_bytes(run, at_us, order, cut=cut)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the end of a run. Its status depends on the finish reason."""
        self._end(run_id, end_of_result(response))

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        """Record that a run failed or was cancelled. What had arrived before stays stored."""
        self._end(run_id, end_of_error(error, response), error)

    # -- inside ---------------------------------------------------------------------------------------------

    def _add(
        self, conversation_id: str | None, messages: Sequence[BaseMessage] = (), *,
        details: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Add to a conversation, which is the one of the code around the call if none is given."""
        self.recorder.require_open()
        names = self._naming.names
        found = names.conversation_id if conversation_id is None else conversation_id
        if found is None:
            raise ConfigError("Without a run a conversation is needed; pass conversation_id='...'")
        user_id = escape(names.user_id) if names.user_id is not None else None
        checked = escape(check_conversation_id(found))
        if messages or details:
            self.recorder.add(checked, user_id, messages, details=details)

    def _set_details(self, details: dict[str, str]) -> None:
        """Set details of the current conversation. The application's block is run in any case."""
        try:
            if details:
                self._add(None, details=details)
        except RecorderError as error:
            log.warning("Title, tags or metadata of a conversation are not stored: %s", error)

    def _user_id(self, user: str | None) -> str | None:
        """The given user, else that of the code around the call."""
        return user_id_of(user) if user is not None else self._naming.names.user_id

    def _start(
        self, operation: str, history: list[BaseMessage], given_id: Any, given_parent: Any, tags: Any, metadata: Any,
        given: Mapping[str, Any],
    ) -> OpenRun | None:  # fmt: skip
        """Start a run. Other frameworks call the hooks, too, so no value is taken to be of its declared type."""
        if self.recorder.closed:
            return None
        run_id, parent = self._ids.uuid("run_id", given_id), self._ids.parent(given_parent)
        parent_run_id = self._steps.shown(parent)
        metadata, parameters = mapping_of(metadata), mapping_of(given.get("invocation_params"))
        others = other_runs_in(given, parameters)
        family = given.get("conversation_of") or (self._steps.root_of(parent) if parent else None)
        naming = self._naming.of_run(metadata, family, others.get("previous"))
        self.recorder.replaced_ids += naming.was_replaced
        started_at, started_us = begun(given.get("started_us"))
        mask = found if isinstance(found := given.get("mask"), Mask) else Mask()
        start = RunStart(
            run_id=str(run_id),
            conversation_id=naming.conversation_id,
            fresh=naming.fresh,
            started_at=started_at,
            operation=operation,
            parent_run_id=str(parent_run_id) if parent_run_id else None,
            provider_name=text_of(metadata.get("ls_provider")),
            request_model=first_text(metadata, ("ls_model_name",)) or first_text(parameters, ("model",)),
            wire=text_of(given.get("wire")),
            request=mask.json(parameters, "request") if parameters else None,
            input_hash=text_of(given.get("input_hash")),
            tags=mask.json(labels, "tags") if (labels := list_of(tags)) else None,
            metadata=mask.metadata(metadata),
            user_id=naming.user_id,
            history_owner=self._naming.history_owner(naming, mask),
            unnamed=naming.unnamed,
            **others,
            mask=mask,
            messages=history,
        )
        return self.recorder.start(run_id.int, start, started_us)

    def _end(self, given_id: Any, end: RunEnd, error: BaseException | None = None) -> None:
        key = id_of(given_id).int
        run = self._runs.get(key) or self.recorder.find(key)
        if run is None:
            return
        end = storable(end, run.start.run_id)
        if (mask := run.start.mask) is not None:
            if error is not None:
                mask.learn_error(error)
            end = masked(end, mask)
        self.recorder.end(key, run, end)

    def _late(self, tokens: int) -> None:
        """Count tokens that arrived after the end of their run or after `close`; they are not stored."""
        self.recorder.queue.count_dropped(tokens)
