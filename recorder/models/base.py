"""`BaseChatModel`: the base class of chat models over a provider's SDK.

A provider has one module, for example `openai.py`. It says how a request is made, which part of the SDK sends it,
which translator reads the response, and which exception the SDK raises for an error event of a stream.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from recorder.messages import AIMessage, AIMessageChunk, messages_from
from recorder.models.sdk_model import SdkModel
from recorder.runs.chat_run import ChatRun
from recorder.runs.run import Request


class BaseChatModel(SdkModel[AIMessage, AIMessageChunk]):
    """A chat model: `invoke`, `stream`, `batch`, `generate`, their asynchronous forms, and `astream_events`.

    The input is a string, a message, or a list of messages, dicts or `(role, text)` pairs. `config` has LangChain's
    keys `callbacks`, `tags`, `metadata`, `run_id`, `run_name`, `max_concurrency`. The result is an `AIMessage`; a
    stream yields `AIMessageChunk`s, which are added with `+`. Raises the SDK's exceptions, and `ConfigError` for an
    input, a config or a tool that cannot be read.
    """

    @abstractmethod
    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        """The arguments of the SDK's `create`."""

    def _input_of(self, input: Any) -> list[Any]:
        return input if isinstance(input, list) else messages_from(input)

    def _open_run(self, request: Request) -> ChatRun:
        return ChatRun(request, self._translator(), self._stream_error)
