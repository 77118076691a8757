"""`ChatAnthropic`: Anthropic's models over the official SDK.

The SDK does authentication, retries, timeouts and status errors. Models read the bytes of its response
(`with_streaming_response`), and `recorder.wire.anthropic.stream` translates them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from recorder.models.anthropic_tools import anthropic_choice, anthropic_tool, betas_of
from recorder.models.base import BaseChatModel
from recorder.models.clients import Clients, secret_text
from recorder.models.create_options import MESSAGES_OPTIONS
from recorder.models.response_formats import anthropic_format_of
from recorder.models.structured_output import (
    FUNCTION_CALLING,
    JSON_SCHEMA,
    StructuredOutput,
    check_method,
    text_parser,
    tool_parser,
)
from recorder.runs.anthropic_run import AnthropicRun
from recorder.runs.own_calls import own_call
from recorder.runs.run import Request
from recorder.wire.anthropic.request import request_messages
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.reply import Translator

#: The newest small model that the SDK lists (November 2026). It accepts no `temperature`.
DEFAULT_MODEL = "claude-haiku-5-5"
#: The API requires `max_tokens`. LangChain's default limit -> models (November 2026); and that of all other models.
_LIMITS = {
    128_000: ("claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-4-6",
              "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5"),
    64_000: ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"),
}  # fmt: skip
_LIMIT = 4_096
#: The timeout of a request without a stream, unless the caller sets one (seconds). With its default timeout the SDK
#: refuses such requests if `max_tokens` is large.
_RESPONSE_TIMEOUT = 3_600
#: How the names of models begin that refuse to be forced to call a tool: LangChain's list.
_NO_FORCED_TOOLS = ("claude-fable-5-1", "claude-opus-5-5", "claude-sonnet-5-5")
_NO_CALL = (
    "The answer has no call of {tool}, and {model} cannot be forced to make one; pass method='json_schema', or switch "
    "thinking off"
)


class ChatAnthropic(BaseChatModel):
    """Anthropic's chat models. The arguments are those of LangChain's `ChatAnthropic`.

    `options` are those of the SDK's `create`. `timeout` is in seconds; its default is the SDK's, and an hour for a
    request without a stream. With `streaming=True`, `invoke` and `generate` stream, so that handlers get the tokens as
    they arrive. Raises the SDK's exceptions, and `ConfigError` for an input, a config or a tool that cannot be read.
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
        stream_usage: bool = True,  # LangChain's; ignored: the API always sends the usage
        model_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = False,  # LangChain's; ignored
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        MESSAGES_OPTIONS.check("ChatAnthropic", options, ChatAnthropic.__init__)
        arguments = {
            "api_key": secret_text(api_key or anthropic_api_key),
            "base_url": base_url or anthropic_api_url or os.environ.get("ANTHROPIC_API_URL"),
            "timeout": timeout if timeout is not None else default_request_timeout,
            "max_retries": max_retries,
            "default_headers": default_headers,
            "default_query": default_query,
        }
        clients = Clients(
            "anthropic",
            ("Anthropic", "AsyncAnthropic"),
            {key: value for key, value in arguments.items() if value is not None},
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
        """The name of the model, as requests have it."""
        return self.model_name

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, parallel_tool_calls: bool | None = None,
        strict: bool | None = None, **options: Any,
    ) -> ChatAnthropic:  # fmt: skip
        """A copy of the model with these tools.

        A tool is a function, a Pydantic class, a TypedDict, a tool of LangChain, or a dict in Anthropic's or OpenAI's
        form. A function's docstring describes it, and its type hints and `Args` describe its parameters.

        `tool_choice` is the name of a tool, "auto", "any", "none", or a dict of the API. Raises `ConfigError` for
        what is not a tool, and for other choices.
        """
        choice = anthropic_choice(tool_choice, parallel_tool_calls, thinking=self._thinks)
        if choice is not None:
            options["tool_choice"] = choice
        return self.bind(tools=[anthropic_tool(tool, strict) for tool in tools], **options)

    def with_structured_output(
        self, schema: Any, *, method: str = FUNCTION_CALLING, include_raw: bool = False,
        strict: bool | None = None, **options: Any,
    ) -> StructuredOutput:  # fmt: skip
        """The model with answers in this form: a Pydantic class, a TypedDict, or a JSON schema with a title.

        The results are objects of the Pydantic class, or dicts. `method` is "function_calling" (the answer is a tool
        call; `strict=True` makes it follow the schema) or "json_schema" (the answer always follows it). The API cannot
        force a tool call while thinking is on and for some models: then an answer without a call is a parsing error.

        An answer without this form raises `OutputParserException` or Pydantic's `ValidationError`, a refusal raises
        `ModelRefusalError`. `include_raw=True` returns a dict with `raw`, `parsed` and `parsing_error` in place of
        raising. Raises `ConfigError` for what has no schema.
        """
        check_method(method, schema, (FUNCTION_CALLING, JSON_SCHEMA))
        if method == JSON_SCHEMA:
            config = {**(self.options.get("output_config") or {}), "format": anthropic_format_of(schema)}
            model = self.bind(output_config=config, **options)
            return StructuredOutput(model, text_parser(method, schema), include_raw=include_raw)
        name = anthropic_tool(schema)["name"]
        is_forced = not self._thinks and not self.model_name.startswith(_NO_FORCED_TOOLS)
        model = self.bind_tools([schema], tool_choice=name if is_forced else None, strict=strict, **options)
        missing = "" if is_forced else _NO_CALL.format(tool=name, model=self.model_name)
        return StructuredOutput(model, tool_parser(name, schema, missing=missing), include_raw=include_raw)

    def get_num_tokens_from_messages(self, messages: Any, tools: Sequence[Any] | None = None) -> int:
        """The number of tokens of these messages in a request, with the model's tools and options.

        Asks the API, which charges nothing for it, and blocks meanwhile. It is no run. `tools` are counted in place of
        the model's tools.
        """
        options = {**self.options, **({"tools": [*map(anthropic_tool, tools)]} if tools is not None else {})}
        body = self._body(self._input_of(messages), options, stream=False)
        with own_call():
            return count_tokens(self._clients.sync_client(), body)

    def get_num_tokens(self, text: str) -> int:
        """The number of tokens of a message with this text, as the API counts them."""
        return self.get_num_tokens_from_messages(text)

    @property
    def _thinks(self) -> bool:
        return (self.options.get("thinking") or {}).get("type") in ("enabled", "adaptive")

    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        options = {key: value for key, value in options.items() if value is not None}
        model = options.get("model", self.model_name)
        system, turns = request_messages(messages, model)
        body = {"model": model, "max_tokens": self.max_tokens, "messages": turns, **_api_options(options)}
        if system:
            body.setdefault("system", system)
        if betas := betas_of(body):
            body["betas"] = betas
        if stream:
            body["stream"] = True
        return body

    def _ls_params(self, body: Mapping[str, Any]) -> dict[str, Any]:
        params = super()._ls_params(body)
        return params | ({"ls_stop": body["stop_sequences"]} if body.get("stop_sequences") else {})

    def _translator(self) -> Translator:
        return AnthropicMessages()

    def _open_run(self, request: Request) -> AnthropicRun:
        return AnthropicRun(request, self._translator(), self._stream_error)

    def _resource(self, client: Any) -> Any:
        return _Messages(client, self._clients.sdk)

    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        return self._clients.sdk.APIStatusError(str(error), response=http_response, body=error)  # type: ignore[no-any-return]


def limit_of(model: str) -> int:
    """LangChain's default of `max_tokens` for this model."""
    return next((limit for limit, names in _LIMITS.items() if model.startswith(names)), _LIMIT)


def _api_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The API's options for LangChain's `stop`, `effort`, `reasoning_effort` and `max_tokens_to_sample`."""
    fields = dict(options)
    if (stop := fields.pop("stop", None)) is not None:
        fields["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if (limit := fields.pop("max_tokens_to_sample", None)) is not None:
        fields.setdefault("max_tokens", limit)
    reasoning_effort = fields.pop("reasoning_effort", None)
    if effort := fields.pop("effort", None) or reasoning_effort:
        fields["output_config"] = {**fields.get("output_config", {}), "effort": effort}
    return fields


def count_tokens(client: Any, body: Mapping[str, Any]) -> int:
    """The tokens of a request, as the API counts them."""
    messages = client.beta.messages if "betas" in body else client.messages
    names = inspect.signature(messages.count_tokens).parameters.keys() & body.keys()
    counted: int = messages.count_tokens(**{name: body[name] for name in names}).input_tokens
    return counted


class _Messages:
    """`client.messages`, or `client.beta.messages` for requests with `betas`."""

    def __init__(self, client: Any, sdk: Any) -> None:
        self._client, self._sdk = client, sdk

    @property
    def with_streaming_response(self) -> _Create:
        """The SDK's property."""
        return _Create(self._client, self._sdk, "with_streaming_response")

    @property
    def with_raw_response(self) -> _Create:
        """The SDK's property."""
        return _Create(self._client, self._sdk, "with_raw_response")


class _Create:
    def __init__(self, client: Any, sdk: Any, way: str) -> None:
        self._client, self._sdk, self._way = client, sdk, way

    def create(self, **body: Any) -> Any:
        """The SDK's method, for every body that `_body` makes."""
        messages = self._client.beta.messages if "betas" in body else self._client.messages
        if (
            not body.get("stream")
            and "timeout" not in body
            and self._client.timeout == self._sdk.DEFAULT_TIMEOUT
        ):
            body["timeout"] = self._sdk.Timeout(_RESPONSE_TIMEOUT, connect=self._sdk.DEFAULT_TIMEOUT.connect)
        return getattr(messages, self._way).create(**_with_extra_body(body, type(messages)))


def _with_extra_body(body: dict[str, Any], messages: type) -> dict[str, Any]:
    """The arguments of `create`. Parameters of older models that a newer SDK has removed go into `extra_body`."""
    moved = {key: body.pop(key) for key in _removed(messages) & body.keys()}
    return {**body, "extra_body": {**moved, **(body.get("extra_body") or {})}} if moved else body


@cache
def _removed(messages: type) -> frozenset[str]:
    parameters = inspect.signature(messages.create).parameters  # type: ignore[attr-defined]
    return frozenset(name for name in ("temperature", "top_k", "top_p") if name not in parameters)
