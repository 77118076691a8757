"""`ChatOpenAI`: OpenAI chat completions, and every provider that speaks them, over the official SDK.

The SDK does what it is good at (authentication, retries, timeouts, status errors) through
`with_streaming_response`; its bytes are translated once, by `recorder.wire.openai_chat`.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

from recorder.models.base import BaseChatModel
from recorder.models.call import StreamError, Translator
from recorder.wire.openai_chat import OpenAIChat
from recorder.wire.openai_messages import request_messages

if TYPE_CHECKING:
    import openai

#: LangChain's default.
DEFAULT_MODEL = "gpt-3.5-turbo"


class ChatOpenAI(BaseChatModel):
    """OpenAI's chat models. Arguments as LangChain's `ChatOpenAI`; `options` are those of the SDK's `create`.

    `stream_usage` asks for the usage in streams (on unless set to False). Raises what the SDK raises.
    """

    provider_name = "openai"

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        model_name: str | None = None,
        api_key: Any = None,
        openai_api_key: Any = None,
        base_url: str | None = None,
        openai_api_base: str | None = None,
        organization: str | None = None,
        timeout: Any = None,
        request_timeout: Any = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, object] | None = None,
        http_client: Any = None,
        http_async_client: Any = None,
        streaming: bool = False,
        stream_usage: bool = True,
        model_kwargs: Mapping[str, Any] | None = None,
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming,
            options={**(model_kwargs or {}), **options},
        )  # fmt: skip
        self.model_name = model_name or model
        self.stream_usage = stream_usage
        wanted = {
            "api_key": _revealed(api_key or openai_api_key),
            "base_url": base_url or openai_api_base,
            "organization": organization,
            "timeout": timeout if timeout is not None else request_timeout,
            "max_retries": max_retries,
            "default_headers": default_headers,
            "default_query": default_query,
        }
        self._client_options = {key: value for key, value in wanted.items() if value is not None}
        self._http_client, self._http_async_client = http_client, http_async_client
        self._client: openai.OpenAI | None = None
        self._async_clients: _ClientByLoop = weakref.WeakKeyDictionary()

    @property
    def model(self) -> str:
        """The model that requests name."""
        return self.model_name

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **options: Any) -> ChatOpenAI:
        """The same model with tools in OpenAI's format; `tool_choice` a tool's name or what the API takes."""
        names = {tool.get("function", {}).get("name") for tool in tools if isinstance(tool, dict)}
        if isinstance(tool_choice, str) and tool_choice in names:
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        if tool_choice is not None:
            options["tool_choice"] = "required" if tool_choice in (True, "any") else tool_choice
        return self.bind(tools=list(tools), **options)

    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        options = {key: value for key, value in options.items() if value is not None}
        body = {"model": self.model_name, "messages": request_messages(messages), **options}
        if stream:
            body["stream"] = True
            if self.stream_usage:
                body["stream_options"] = {"include_usage": True, **options.get("stream_options", {})}
        return body

    def _translator(self) -> Translator:
        return OpenAIChat()

    def _open(self, body: dict[str, Any]) -> AbstractContextManager[Any]:
        return self._sync_client().chat.completions.with_streaming_response.create(**body)

    def _aopen(self, body: dict[str, Any]) -> AbstractAsyncContextManager[Any]:
        return self._async_client().chat.completions.with_streaming_response.create(**body)

    def _error(self, error: Exception, response: Any) -> Exception:
        import openai

        request = response.http_request
        if isinstance(error, StreamError):
            return openai.APIError(_message_of(error.error), request, body=error.error)
        if isinstance(error, tuple(_transport_errors("TimeoutException"))):
            return openai.APITimeoutError(request=request)
        if isinstance(error, tuple(_transport_errors("RequestError"))):
            return openai.APIConnectionError(request=request)
        return error

    def _sync_client(self) -> openai.OpenAI:
        if self._client is None:
            import openai

            self._client = openai.OpenAI(**self._client_options, http_client=self._http_client)
        return self._client

    def _async_client(self) -> openai.AsyncOpenAI:
        """One for each event loop: its connections are of no use, and harmful, in another."""
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            import openai

            client = openai.AsyncOpenAI(**self._client_options, http_client=self._http_async_client)
            self._async_clients[loop] = client
        return client


if TYPE_CHECKING:
    _ClientByLoop = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI]


def _revealed(key: Any) -> Any:
    """The text of a pydantic `SecretStr`, as LangChain's users pass it; anything else as it is."""
    return key.get_secret_value() if hasattr(key, "get_secret_value") else key


def _message_of(error: Any) -> str:
    """The SDK's words for an error event."""
    message = error.get("message") if isinstance(error, Mapping) else None
    return message if isinstance(message, str) and message else "An error occurred during streaming"


def _transport_errors(name: str) -> Iterator[type[Exception]]:
    """The HTTP client's error classes; both generations of it occur."""
    for module in ("httpx2", "httpx"):
        if module in sys.modules:
            yield getattr(sys.modules[module], name)
