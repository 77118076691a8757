"""The base of all handlers, and the one that writes to the terminal."""

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
    """Override what you need, plain or `async`; a method that you leave alone costs nothing.

    A method may return something to wait for (a `recorder.core.waitable.Wait`, a coroutine): the model waits for
    it before it goes on. An exception is logged once for each handler and method, and the stream goes on.
    """

    #: Whether an exception of this handler ends the application's call instead of being logged.
    raise_error: bool = False
    #: Whether `on_stream_frame` takes the tokens too, so that `on_llm_new_token` is not called as well. A model
    #: without frames calls it with an empty one then.
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
        """A chat model starts. Where it is not overridden, `on_llm_start` gets the messages as one text."""

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
        """A streamed piece came; `token` is empty where the chunk holds something else than text."""

    def on_stream_frame(self, frame: bytes, at_us: int, deltas: Sequence[Delta], *, run_id: UUID) -> Any:
        """A wire event came, as bytes as received, microseconds after the request; before its tokens."""

    def on_chat_new_message(self, message: BaseMessage) -> Any:
        """A message is new to the conversation: each new one of the request, then the reply."""

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The run is over and this is all of it."""

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
        """The run failed or was left; `response` holds what had come until then."""


CallbackHandler = BaseCallbackHandler


class StreamingStdOutCallbackHandler(BaseCallbackHandler):
    """Writes each token to standard output as it comes."""

    def __init__(self) -> None:
        self._told = False

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """Write and flush; a standard output that is gone is logged once and does not end the stream."""
        if not token:
            return
        # Looked up each time: notebooks, tests and redirect_stdout change it.
        out = sys.stdout
        try:
            _write(out, str(token))
        except (OSError, ValueError, AttributeError):
            self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            log.warning("Cannot write tokens to standard output; the stream goes on unseen", exc_info=True)


def _write(out: Any, token: str) -> None:
    try:
        out.write(token)
    except UnicodeEncodeError:
        # A terminal that is not UTF-8, or half of a surrogate pair.
        out.write(token.encode(out.encoding or "ascii", "backslashreplace").decode(out.encoding or "ascii"))
    out.flush()
