"""The base class of all handlers, and a handler that writes to standard output."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from recorder.messages import BaseMessage, ChatGenerationChunk, GenerationChunk, LLMResult
from recorder.wire.deltas import Delta

log = logging.getLogger("recorder")


class BaseCallbackHandler:
    """Override the methods that you need, plain or `async`. A method that is not overridden is never called.

    A method may return an awaitable (a `recorder.core.waitable.Wait`, a coroutine); the model waits for it before it
    continues. An exception does not end the stream: the first one of each handler and method is logged.
    """

    #: Whether an exception of this handler ends the application's call instead of being logged.
    raise_error: bool = False
    #: Whether the handler takes tokens from `on_stream_frame`; `on_llm_new_token` is then not called. A model without
    #: frames calls it with an empty frame.
    tokens_from_frames: bool = False

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A chat model starts. If this is not overridden, `on_llm_start` gets the messages as one text."""

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A completion model starts."""

    def on_llm_new_token(
        self,
        token: str,
        *,
        chunk: ChatGenerationChunk | GenerationChunk | None = None,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A token arrived. `token` is empty if the chunk holds something other than text."""

    def on_stream_frame(self, frame: bytes, at_us: int, deltas: Sequence[Delta], *, run_id: UUID) -> Any:
        """A stream event arrived `at_us` microseconds after the request: its bytes. Called before its tokens."""

    def on_chat_new_message(self, message: BaseMessage) -> Any:
        """A message is new in the conversation: called for each new message of the request, then for the reply."""

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The run ended, with this result."""

    def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        response: LLMResult | None = None,
        **kwargs: Any,
    ) -> Any:
        """The run failed or was cancelled. `response` has what had arrived before."""

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A chain starts. The runs of models in it have its `run_id` as their `parent_run_id`."""

    def on_chain_end(
        self,
        outputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The chain returned."""

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The chain failed or was cancelled."""


CallbackHandler = BaseCallbackHandler


class StreamingStdOutCallbackHandler(BaseCallbackHandler):
    """Writes each token to standard output when it arrives."""

    def __init__(self) -> None:
        self._warned = False

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """Write the token and flush. A failure is logged once and does not end the stream."""
        if not token:
            return
        # Looked up each time: notebooks, tests and redirect_stdout change it.
        out = sys.stdout
        try:
            _write(out, str(token))
        except (OSError, ValueError, AttributeError):
            self._warn_once()

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "Cannot write tokens to standard output; the stream continues without output", exc_info=True
            )


def _write(out: Any, token: str) -> None:
    try:
        out.write(token)
    except UnicodeEncodeError:
        # A terminal that is not UTF-8, or half of a surrogate pair.
        out.write(token.encode(out.encoding or "ascii", "backslashreplace").decode(out.encoding or "ascii"))
    out.flush()
