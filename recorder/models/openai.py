"""`ChatOpenAI`: OpenAI chat completions, of OpenAI and of other providers that serve them, over the official SDK.

The SDK does authentication, retries, timeouts and status errors. Models read the bytes of its response
(`with_streaming_response`), and `recorder.wire.openai.chat` translates them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from recorder.errors import ConfigError
from recorder.models.base import BaseChatModel
from recorder.models.clients import Clients, secret_text
from recorder.redaction.credentials import shown
from recorder.runs.chat_run import ChatRun
from recorder.runs.run import Request
from recorder.wire.errors import error_text
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.openai.choices import requested_choices
from recorder.wire.openai.events import OpenAIEvents
from recorder.wire.openai.request import request_messages
from recorder.wire.reply import Translator

#: A small model of 2026. LangChain's default, gpt-3.5-turbo, was shut down on 2026-10-23, as the SDK's
#: openai/types/shared/chat_model.py says.
DEFAULT_MODEL = "gpt-5.4-mini"


class BaseChatOpenAI(BaseChatModel):
    """The base class of models that use OpenAI's chat format."""

    def __init__(self, clients: Clients, model_name: str, *, stream_usage: bool, **settings: Any) -> None:
        super().__init__(clients, **settings)
        self.model_name = model_name
        self.stream_usage = stream_usage

    @property
    def model(self) -> str:
        """The name of the model, as requests have it."""
        return self.model_name

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **options: Any) -> Self:
        """A copy of the model with these tools (dicts in OpenAI's form).

        `tool_choice` is the name of a tool, "any", True, or a value of the API. Raises `ConfigError` for other tools.
        """
        if invalid := [tool for tool in tools if not isinstance(tool, Mapping)]:
            raise ConfigError(
                f"bind_tools got {shown(invalid[0])}; pass dicts in OpenAI's form, "
                "{'type': 'function', 'function': {'name': ..., 'parameters': ...}}"
            )
        names = {tool.get("function", {}).get("name") for tool in tools}
        if isinstance(tool_choice, str) and tool_choice in names:
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        if tool_choice:
            options["tool_choice"] = "required" if tool_choice in (True, "any") else tool_choice
        return self.bind(tools=list(tools), **options)

    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        body = {
            "model": self.model_name,
            "messages": request_messages(messages, self._clients.host),
            **options,
        }
        return with_usage(body, stream=stream, usage=self.stream_usage)

    def _open_run(self, request: Request) -> ChatRun:
        translator = self._translator()
        set_choices(translator, request)
        return ChatRun(request, translator, self._stream_error, host=self._clients.host)

    def _translator(self) -> Translator:
        return OpenAIChat()

    def _resource(self, client: Any) -> Any:
        return client.chat.completions

    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        return stream_error(self._clients.sdk, error, http_response)


class ChatOpenAI(BaseChatOpenAI):
    """OpenAI's chat models. The arguments are those of LangChain's `ChatOpenAI`; `options` those of the SDK's `create`.

    `timeout` is in seconds; its default is the SDK's. With `streaming=True`, `invoke` and `generate` stream, so that
    handlers get the tokens as they arrive. `stream_usage` asks for the usage in streams (default: True). Raises the
    SDK's exceptions, and `ConfigError` for an input, a config or a tool that cannot be read.
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
        openai_organization: str | None = None,
        timeout: Any = None,
        request_timeout: Any = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, object] | None = None,
        http_client: Any = None,
        http_async_client: Any = None,
        streaming: bool = False,
        stream_usage: bool = True,
        stop_sequences: Sequence[str] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = False,  # LangChain's; ignored
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        clients = openai_clients(
            api_key=api_key or openai_api_key,
            base_url=base_url or openai_api_base or os.environ.get("OPENAI_API_BASE"),
            organization=organization or openai_organization,
            timeout=timeout if timeout is not None else request_timeout,
            max_retries=max_retries,
            default_headers=default_headers,
            default_query=default_query,
            http_client=http_client,
            http_async_client=http_async_client,
        )
        super().__init__(
            clients, model_name or model, stream_usage=stream_usage, callbacks=callbacks, tags=tags,
            metadata=metadata, name=name, streaming=streaming,
            options={"stop": stop_sequences, **(model_kwargs or {}), **options},
        )  # fmt: skip


def openai_clients(
    names: tuple[str, str] = ("OpenAI", "AsyncOpenAI"), *, http_client: Any, http_async_client: Any,
    async_only: Mapping[str, Any] | None = None, **wanted: Any,
) -> Clients:  # fmt: skip
    """The SDK's clients with these arguments. Where one is None, the SDK reads its value from the environment."""
    given = {key: secret_text(value) for key, value in wanted.items() if value is not None}
    return Clients(
        "openai", names, given, async_only=async_only, http_client=http_client, http_async_client=http_async_client
    )  # fmt: skip


def with_usage(body: dict[str, Any], *, stream: bool, usage: bool) -> dict[str, Any]:
    """The body without values of None. If `stream` and `usage` are set, it asks for the usage of the stream."""
    body = {key: value for key, value in body.items() if value is not None}
    if stream:
        body["stream"] = True
        if usage:
            body["stream_options"] = {"include_usage": True, **body.get("stream_options", {})}
    return body


def set_choices(translator: Translator, request: Request) -> None:
    """Tell a translator of OpenAI's formats how many choices the request asks for."""
    if isinstance(translator, OpenAIEvents):
        translator.choices.requested_count = requested_choices(request.body)


def stream_error(sdk: Any, error: Any, http_response: Any) -> Exception:
    """The SDK's exception for an error event of a stream."""
    message = error_text(error) or "An error occurred during streaming"
    return sdk.APIError(message, http_response.request, body=error)  # type: ignore[no-any-return]
