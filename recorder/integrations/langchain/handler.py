"""`ChatHistoryCallback` for LangChain and LangGraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any
from uuid import UUID

from recorder import chat_history_callback
from recorder.core.ids import CONVERSATION_KEYS
from recorder.core.waitable import Wait
from recorder.instrumentation import process
from recorder.instrumentation.linked_run import LinkedRun
from recorder.integrations.langchain.framework import BaseCallbackHandler, configurable
from recorder.integrations.langchain.open_run import EVENTS, TOKENS, OpenModelRun, OpenModelRuns
from recorder.integrations.langchain.tokens import chunk_of_event, chunk_of_message
from recorder.recording.stats import Stats
from recorder.storage.operations import RETRIEVAL, TOOL


class ChatHistoryCallback(chat_history_callback.ChatHistoryCallback, BaseCallbackHandler):
    """Stores every message and token of LangChain's models, in the constructor's `callbacks=` or in `config=`.

    The arguments, methods and errors are those of `recorder.ChatHistoryCallback`. A model over HTTP (httpx) is recorded
    from the bytes of its response, so that what LangChain drops is kept; any other model from LangChain's callbacks.
    `thread_id`, `session_id` or `conversation_id` in the config names the conversation.
    """

    #: Whether `record_all` has given this handler to every run.
    records_all = False
    raise_error = False
    ignore_llm = ignore_chat_model = ignore_chain = False
    ignore_agent = ignore_retriever = False  # LangChain reads the first one for tools
    ignore_retry = ignore_custom_event = True

    def __init__(self, url: str | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._model_runs = OpenModelRuns()
        self._unlink = process.attach_linked()
        # Attributes, because they are read for every token. LangChain waits for nothing that a handler returns, so a
        # full queue cannot make the model wait here.
        self._open_model_runs = self._model_runs.by_key
        self._record_token = super().on_llm_new_token

    def close(self, timeout: float | None = None) -> Wait[Stats]:
        """As `recorder.ChatHistoryCallback.close`. Requests of LangChain's models are no longer looked at."""
        self._unlink()
        return super().close(timeout)

    # -- starts ---------------------------------------------------------------------------------------------------

    def on_chat_model_start(
        self, serialized: dict[str, Any] | None, messages: Sequence[Sequence[Any]], *, run_id: UUID,
        parent_run_id: UUID | None = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A run of a chat model begins."""
        names: dict[str, Any] = {"parent_run_id": parent_run_id, "metadata": _named(metadata)}
        super().on_chat_model_start(serialized, messages, run_id=run_id, tags=tags, **names, **kwargs)
        self._begin(run_id, parent_run_id, kwargs)

    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: Sequence[str], *, run_id: UUID,
        parent_run_id: UUID | None = None, tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A run of a completion model begins."""
        names: dict[str, Any] = {"parent_run_id": parent_run_id, "metadata": _named(metadata)}
        super().on_llm_start(serialized, prompts, run_id=run_id, tags=tags, **names, **kwargs)
        self._begin(run_id, parent_run_id, kwargs)

    def _begin(self, run_id: UUID, parent_run_id: UUID | None, given: Mapping[str, Any]) -> None:
        linked = None if given.get("batch_size", 1) != 1 else LinkedRun(self, run_id)
        self._model_runs.add(run_id, OpenModelRun(parent_run_id, linked))
        if linked is not None:
            linked.enter()

    # -- tokens ---------------------------------------------------------------------------------------------------

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, parent_run_id: UUID | None = None,
        tags: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Record a token, unless it comes with the bytes of the response. Of a linked run nothing else is done here."""
        run = self._open_model_runs.get(run_id.int)
        if run is None or ((linked := run.linked) is not None and linked.has_sent):
            return
        if run.channel is TOKENS or run.takes(TOKENS):
            if (message := getattr(chunk, "message", None)) is not None:
                token = message.content  # the token lacks thoughts of some models
                if type(token) is str and token and not message.additional_kwargs:
                    recorded = self._runs.get(run_id.int)
                    calls = getattr(message, "tool_call_chunks", None)
                    if recorded is not None and not (calls or recorded.has_frames):
                        # What `_record_token` would do, with fewer calls.
                        self._put(recorded, token, perf_counter_ns() // 1000 - recorded.started_us)
                        return
            self._record_token(token, chunk=chunk, run_id=run_id)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Record what an event of LangChain's third version adds, unless its tokens come from another hook."""
        run = self._model_runs.get(run_id)
        if run is None or (found := chunk_of_event(event)) is None:
            return
        if run.takes(EVENTS):
            self._record_token(found.message.content, chunk=found, run_id=run_id)

    # -- ends -----------------------------------------------------------------------------------------------------

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the end of a run."""
        run = self._model_runs.pop(run_id)
        if run is None or run.linked is None or not run.linked.has_sent:
            self._end_alone(run, response, run_id)
        else:
            run.linked.end(response)

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: Any = None, **kwargs: Any
    ) -> None:
        """Record that a run failed or was cancelled."""
        run = self._model_runs.pop(run_id)
        if run is not None and run.linked is not None and run.linked.has_sent:
            run.linked.fail(error, response)
        else:
            if run is not None and run.linked is not None:
                run.linked.is_open = False
            super().on_llm_error(error, run_id=run_id, response=response)

    def _end_alone(self, run: OpenModelRun | None, response: Any, run_id: UUID) -> None:
        if run is not None and run.linked is not None:
            run.linked.is_open = False
        if run is not None and run.channel is None:  # it was not streamed
            for message in _messages_of(response):
                self._record_token(message.content, chunk=chunk_of_message(message), run_id=run_id)
        super().on_llm_end(response, run_id=run_id)

    # -- chains, tools and retrievers -------------------------------------------------------------------------------

    def on_chain_start(
        self, serialized: dict[str, Any] | None, inputs: Any, *, run_id: UUID,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A chain or a graph begins, or a step of it."""
        super().on_chain_start(serialized, inputs, run_id=run_id, metadata=_named(metadata), **kwargs)

    def on_tool_start(
        self, serialized: dict[str, Any] | None, input_str: str, *, run_id: UUID, inputs: Any = None,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A tool begins."""
        got = input_str if inputs is None else inputs
        self._steps.begin(self._start, TOOL, serialized, got, run_id, metadata=_named(metadata), **kwargs)

    def on_retriever_start(
        self, serialized: dict[str, Any] | None, query: str, *, run_id: UUID,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A retriever begins."""
        self._steps.begin(
            self._start, RETRIEVAL, serialized, query, run_id, metadata=_named(metadata), **kwargs
        )

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain returned. The model's runs in it that LangChain ended without a callback end, too."""
        self._end_children(run_id, GeneratorExit())
        super().on_chain_end(outputs, run_id=run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool returned."""
        self._steps.finish(self._end, run_id, output)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever returned."""
        self._steps.finish(self._end, run_id, documents)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain failed. A cancelled `ainvoke` in it has reported no end of its model."""
        self._end_children(run_id, error)
        super().on_chain_error(error, run_id=run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool failed."""
        self._steps.fail(self._end, run_id, error)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever failed."""
        self._steps.fail(self._end, run_id, error)

    def _end_children(self, parent_run_id: UUID, error: BaseException) -> None:
        for run_id in self._model_runs.pop_children(parent_run_id):
            self.on_llm_error(error, run_id=run_id)

    # -- linked runs ------------------------------------------------------------------------------------------------

    def add_request(
        self, run_id: UUID, wire: str | None, input_hash: str | None, mask: Any, host: str | None
    ) -> None:
        """The run sends a request with this wire format. Called on the writer's thread."""
        run = self.recorder.find(run_id.int)
        if run is not None:
            self.recorder.add_request(run.start, wire, input_hash, mask, host)

    def add_child(self, start: Mapping[str, Any], error: BaseException, response: Any) -> None:
        """Record an attempt that failed before another one. Called on the writer's thread."""
        begin = super().on_llm_start if "prompts" in start else super().on_chat_model_start
        parent = self.recorder.find(start["parent_run_id"].int)
        names = {"conversation_id": parent.start.conversation_id} if parent is not None else {}
        begin(**{**start, "metadata": {**(start.get("metadata") or {}), **names}})
        super().on_llm_error(error, run_id=start["run_id"], response=response)

    def end_linked(self, run_id: UUID, response: Any, error: BaseException | None = None) -> None:
        """End a run by the bytes of its response. Called on the writer's thread."""
        self._model_runs.pop(run_id)
        if error is None:
            super().on_llm_end(response, run_id=run_id)
        else:
            super().on_llm_error(error, run_id=run_id, response=response)


def _named(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The metadata with the conversation that the config names; LangChain leaves it out of the metadata."""
    found = dict(metadata or {})
    if not any(found.get(key) for key in CONVERSATION_KEYS):
        config = configurable()
        found |= {key: config[key] for key in CONVERSATION_KEYS if config.get(key)}
    return found


def _messages_of(response: Any) -> list[Any]:
    """The messages of the first prompt's choices."""
    generations = getattr(response, "generations", None) or [[]]
    found = [getattr(choice, "message", None) for choice in generations[0]]
    return [message for message in found[:1] if message is not None]
