"""`ChatAnthropic`: Anthropic's models over the official SDK.

The SDK does what it is good at (authentication, retries, timeouts, status errors) through
`with_streaming_response`; its bytes are translated once, by `recorder.wire.anthropic.stream`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from recorder.messages import AIMessageChunk
from recorder.models.anthropic_tools import anthropic_choice, anthropic_tool, betas_of
from recorder.models.base import BaseChatModel
from recorder.models.chat_run import ChatRun
from recorder.models.clients import Clients
from recorder.models.run import ErrorOf, Request
from recorder.wire.anthropic.chunks import fill_blocks, fill_text, wants_blocks
from recorder.wire.anthropic.request import request_messages
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.deltas import Delta
from recorder.wire.reply import Translator

#: The newest small model, and one of the newest that still take a temperature (November 2026).
DEFAULT_MODEL = "claude-haiku-4-5"
#: The API needs a limit: LangChain's of each model (November 2026), and that of all others.
_LIMITS = {
    128_000: ("claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-4-6",
              "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5"),
    64_000: ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"),
}  # fmt: skip
_LIMIT = 4_096
#: How long a whole answer may take when nobody says (seconds). The SDK refuses to wait for one that may be long.
_PATIENCE = 3_600


class ChatAnthropic(BaseChatModel):
    """Anthropic's chat models. Arguments as LangChain's `ChatAnthropic`; `options` are those of the SDK's `create`.

    Raises what the SDK raises.
    """

    provider_name = "anthropic"

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        model_name: str | None = None,
        max_tokens: int | None = None,
        max_tokens_to_sample: int | None = None,
        stop_sequences: Sequence[str] | None = None,
        thinking: Mapping[str, Any] | None = None,
        api_key: Any = None,
        anthropic_api_key: Any = None,
        base_url: str | None = None,
        anthropic_api_url: str | None = None,
        timeout: Any = None,
        default_request_timeout: Any = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, object] | None = None,
        http_client: Any = None,
        http_async_client: Any = None,
        streaming: bool = False,
        stream_usage: bool = True,  # LangChain's; the API always tells the usage
        model_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = False,  # LangChain's; what is said here, handlers say
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        wanted = {
            "api_key": _revealed(api_key or anthropic_api_key),
            "base_url": base_url or anthropic_api_url or os.environ.get("ANTHROPIC_API_URL"),
            "timeout": timeout if timeout is not None else default_request_timeout,
            "max_retries": max_retries,
            "default_headers": default_headers,
            "default_query": default_query,
        }
        clients = Clients(
            "anthropic",
            ("Anthropic", "AsyncAnthropic"),
            {key: value for key, value in wanted.items() if value is not None},
            http_client=http_client,
            http_async_client=http_async_client,
        )
        super().__init__(
            clients, callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming,
            options={"stop_sequences": stop_sequences, "thinking": thinking, **(model_kwargs or {}), **options},
        )  # fmt: skip
        self.model_name = model_name or model
        limit = max_tokens if max_tokens is not None else max_tokens_to_sample
        self.max_tokens = limit if limit is not None else limit_of(self.model_name)

    @property
    def model(self) -> str:
        """The model that requests name."""
        return self.model_name

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, parallel_tool_calls: bool | None = None,
        strict: bool | None = None, **options: Any,
    ) -> ChatAnthropic:  # fmt: skip
        """The same model with tools in Anthropic's format or OpenAI's; `tool_choice` a name, auto, any or none."""
        thinks = (self.options.get("thinking") or {}).get("type") in ("enabled", "adaptive")
        choice = anthropic_choice(tool_choice, parallel_tool_calls, thinking=thinks)
        if choice is not None:
            options["tool_choice"] = choice
        return self.bind(tools=[anthropic_tool(tool, strict) for tool in tools], **options)

    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        options = {key: value for key, value in options.items() if value is not None}
        model = options.get("model", self.model_name)
        system, turns = request_messages(messages, model)
        body = {"model": model, "max_tokens": self.max_tokens, "messages": turns, **_in_its_words(options)}
        if system:
            body.setdefault("system", system)
        if betas := betas_of(body):
            body["betas"] = betas
        if stream:
            body["stream"] = True
        return body

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        said = super()._ls_params(body)
        return said | ({"ls_stop": body["stop_sequences"]} if body.get("stop_sequences") else {})

    def _translator(self) -> Translator:
        return AnthropicMessages()

    def _open_run(self, request: Request) -> AnthropicRun:
        return AnthropicRun(request, self._translator(), self._stream_error)

    def _resource(self, client: Any) -> Any:
        return _Messages(client, self._clients.sdk)

    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        return self._clients.sdk.APIStatusError(str(error), response=http_response, body=error)  # type: ignore[no-any-return]


class AnthropicRun(ChatRun):
    """A run whose chunks are text, or lists of blocks where the request asks for more than text."""

    def __init__(self, request: Request, translator: Translator, error_of: ErrorOf) -> None:
        super().__init__(request, translator, error_of)
        self._plain = not wants_blocks(request.body)

    def _fill(self, chunk: AIMessageChunk, deltas: Sequence[Delta]) -> bool:
        return fill_text(chunk, deltas) if self._plain else fill_blocks(chunk, deltas)


def limit_of(model: str) -> int:
    """The most tokens that the model writes, as LangChain asks for by default."""
    return next((limit for limit, names in _LIMITS.items() if model.startswith(names)), _LIMIT)


def _in_its_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """LangChain's options in the API's words: `stop`, `effort`, and the older name of the limit."""
    said = dict(options)
    if (stop := said.pop("stop", None)) is not None:
        said["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if (limit := said.pop("max_tokens_to_sample", None)) is not None:
        said.setdefault("max_tokens", limit)
    by_longer_name = said.pop("reasoning_effort", None)
    if effort := said.pop("effort", None) or by_longer_name:
        said["output_config"] = {**said.get("output_config", {}), "effort": effort}
    return said


class _Messages:
    """`messages` of an SDK's client, or of its beta part for requests that name betas."""

    def __init__(self, client: Any, sdk: Any) -> None:
        self._client, self._sdk = client, sdk

    @property
    def with_streaming_response(self) -> _Create:
        """As the SDK's."""
        return _Create(self._client, self._sdk, "with_streaming_response")

    @property
    def with_raw_response(self) -> _Create:
        """As the SDK's."""
        return _Create(self._client, self._sdk, "with_raw_response")


class _Create:
    def __init__(self, client: Any, sdk: Any, way: str) -> None:
        self._client, self._sdk, self._way = client, sdk, way

    def create(self, **body: Any) -> Any:
        """As the SDK's, for all that a body may say."""
        messages = self._client.beta.messages if "betas" in body else self._client.messages
        if (
            not body.get("stream")
            and "timeout" not in body
            and self._client.timeout == self._sdk.DEFAULT_TIMEOUT
        ):
            body["timeout"] = self._sdk.Timeout(_PATIENCE, connect=self._sdk.DEFAULT_TIMEOUT.connect)
        return getattr(messages, self._way).create(**_routed(body, type(messages)))


def _routed(body: dict[str, Any], messages: type) -> dict[str, Any]:
    """Parameters of older models, which newer SDKs have no names for and send all the same."""
    moved = {key: body.pop(key) for key in _unnamed(messages) & body.keys()}
    return {**body, "extra_body": {**moved, **(body.get("extra_body") or {})}} if moved else body


@cache
def _unnamed(messages: type) -> frozenset[str]:
    named = inspect.signature(messages.create).parameters  # type: ignore[attr-defined]
    return frozenset(name for name in ("temperature", "top_k", "top_p") if name not in named)


def _revealed(key: Any) -> Any:
    """The text of a pydantic `SecretStr`, as LangChain's users pass it; anything else as it is."""
    return key.get_secret_value() if hasattr(key, "get_secret_value") else key
