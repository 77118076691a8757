"""`ChatOpenAI`: OpenAI's chat models, and those of other providers with its formats, over the official SDK.

The SDK does authentication, retries, timeouts and status errors. Models read the bytes of its response
(`with_streaming_response`), and the translators in `recorder.wire.openai` translate them. A request goes to one of two
APIs: chat completions (`chat_completions.py`) or Responses (`responses.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from recorder.errors import ConfigError
from recorder.messages import BaseMessage
from recorder.models.base import BaseChatModel
from recorder.models.chat_completions import ChatCompletionsApi
from recorder.models.clients import Clients, secret_text
from recorder.models.create_options import CHAT_OPTIONS
from recorder.models.response_formats import response_format_for_tools, response_format_of
from recorder.models.responses import ResponsesApi, needs_responses
from recorder.models.structured_output import (
    FUNCTION_CALLING,
    JSON_MODE,
    JSON_SCHEMA,
    StructuredOutput,
    check_method,
    text_parser,
    tool_parser,
)
from recorder.models.tokens import TokenCounter, num_tokens
from recorder.models.tools import openai_choice, openai_tool
from recorder.runs.chat_run import ChatRun
from recorder.runs.run import Request, WireRun
from recorder.wire.errors import error_text
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.openai.request import request_messages
from recorder.wire.openai.responses_request import conversation_id
from recorder.wire.reply import Translator

#: A small model of 2026. LangChain's default, gpt-3.5-turbo, was shut down on 2026-10-23, as the SDK's
#: openai/types/shared/chat_model.py says.
DEFAULT_MODEL = "gpt-5.4-mini"


class BaseChatOpenAI(TokenCounter, BaseChatModel):
    """The base class of models that use OpenAI's chat completions or Responses."""

    def __init__(
        self, clients: Clients, model_name: str, *, stream_usage: bool, use_responses_api: bool | None,
        use_previous_response_id: bool, tiktoken_model_name: str | None, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(clients, **settings)
        self.tiktoken_model_name = tiktoken_model_name
        self.model_name = model_name
        self.stream_usage = stream_usage
        self.use_responses_api = use_responses_api
        self.use_previous_response_id = use_previous_response_id

    @property
    def model(self) -> str:
        """The name of the model, as requests have it."""
        return self.model_name

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, strict: bool | None = None,
        parallel_tool_calls: bool | None = None, response_format: Any = None, **options: Any,
    ) -> Self:  # fmt: skip
        """A copy of the model with these tools.

        A tool is a function, a Pydantic class, a TypedDict, a tool of LangChain, or a dict: a function in OpenAI's
        form, or one of OpenAI's own tools. A function's docstring describes it, and its type hints and `Args` describe
        its parameters.

        `tool_choice` is the name of a function, the type of another tool, "any", True, or a value of the API.
        `strict=True` makes OpenAI follow the schemas exactly. `response_format` is a schema of an answer without tool
        calls, as for `with_structured_output`; then `strict` is True by default for chat completions. Raises
        `ConfigError` for what is not a tool.
        """
        if response_format is not None:
            options["response_format"] = response_format_for_tools(response_format, strict)
            strict = True if strict is None and not self.use_responses_api else strict
        if parallel_tool_calls is not None:
            options["parallel_tool_calls"] = parallel_tool_calls
        found = [openai_tool(tool, strict) for tool in tools]
        if tool_choice:
            options["tool_choice"] = openai_choice(tool_choice, found)
        return self.bind(tools=found, **options)

    def with_structured_output(
        self, schema: Any = None, *, method: str = JSON_SCHEMA, include_raw: bool = False,
        strict: bool | None = None, tools: Sequence[Any] | None = None, **options: Any,
    ) -> StructuredOutput:  # fmt: skip
        """The model with answers in this form: a Pydantic class, a TypedDict, or a JSON schema with a title.

        The results are objects of the Pydantic class, or dicts. `method` is "json_schema" (the API makes the answer
        follow the schema), "function_calling" (the answer is a tool call) or "json_mode" (the answer is any JSON; the
        messages must say which). `strict` is for the first two; a Pydantic class with "json_schema" is strict. With
        "json_schema", the model may call `tools` in place of answering.

        An answer without this form raises `OutputParserException` or Pydantic's `ValidationError`, a refusal raises
        `ModelRefusalError`. `include_raw=True` returns a dict with `raw`, `parsed` and `parsing_error` in place of
        raising. Raises `ConfigError` for what has no schema.
        """
        check_method(method, schema)
        if strict is not None and method == JSON_MODE:
            raise ConfigError("strict has no meaning with method 'json_mode'; leave it out")
        if method == FUNCTION_CALLING:
            name = openai_tool(schema)["function"]["name"]
            options = {"parallel_tool_calls": False, **options}
            model = self.bind_tools([schema], tool_choice=name, strict=strict, **options)
            return StructuredOutput(model, tool_parser(name, schema), include_raw=include_raw)
        is_json_mode = method == JSON_MODE
        form = {"type": "json_object"} if is_json_mode else response_format_of(schema, strict)
        if tools:
            options["tools"] = [openai_tool(tool, strict) for tool in tools]
        model = self.bind(response_format=form, **options)
        return StructuredOutput(model, text_parser(method, schema), include_raw=include_raw)

    def get_num_tokens_from_messages(self, messages: Any) -> int:
        """The number of tokens of these messages in a request, as OpenAI's cookbook counts them.

        Needs what `get_token_ids` needs. Tools are not counted, because OpenAI does not say how. Raises `ConfigError`
        for images whose size matters, and for files.
        """
        return num_tokens(request_messages(self._input_of(messages), self._clients.host), self.get_num_tokens)

    def _body(self, messages: list[Any], options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        options = {"model": self.model_name, **options}
        api = self._api(is_responses=self._wants_responses(options))
        return api.body(messages, options, host=self._clients.host, stream=stream)

    def _messages_of(self, prompt: list[Any], body: Mapping[str, Any]) -> list[BaseMessage]:
        return self._api_of(body).messages(prompt, body)

    def _open_run(self, request: Request) -> ChatRun:
        return self._api_of(request.body).run(request, self._stream_error, self._clients.host)

    def _resource_of(self, run: WireRun[Any], client: Any) -> Any:
        return self._api_of(run.request.body).resource(client)

    def _api_of(self, body: Mapping[str, Any]) -> ChatCompletionsApi | ResponsesApi:
        """The API that a body was made for. A request that could not be made has no input."""
        has_input = "input" in body or "messages" in body
        return self._api(is_responses="input" in body if has_input else self.use_responses_api is True)

    def _api(self, *, is_responses: bool) -> ChatCompletionsApi | ResponsesApi:
        if is_responses:
            return ResponsesApi(use_previous_response_id=self.use_previous_response_id)
        return ChatCompletionsApi(stream_usage=self.stream_usage)

    def _wants_responses(self, options: Mapping[str, Any]) -> bool:
        if self.use_responses_api is not None:
            return self.use_responses_api
        return self.use_previous_response_id or needs_responses(options)

    def _names_in(self, body: Mapping[str, Any]) -> dict[str, str]:
        found = conversation_id(body) if "input" in body else None
        return {"conversation_id": found} if found else {}

    def _translator(self) -> Translator:
        return OpenAIChat()

    def _resource(self, client: Any) -> Any:
        return client.chat.completions

    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        return stream_error(self._clients.sdk, error, http_response)


class ChatOpenAI(BaseChatOpenAI):
    """OpenAI's chat models. The arguments are those of LangChain's `ChatOpenAI`; `options` those of the SDK's `create`.

    `timeout` is in seconds; its default is the SDK's. With `streaming=True`, `invoke` and `generate` stream, so that
    handlers get the tokens as they arrive. `stream_usage` asks for the usage in streams of chat completions (default:
    True); Responses always sends it.

    `use_responses_api` sends the requests to OpenAI's Responses API (True) or to chat completions (False). By default
    Responses gets the requests that only it can answer: with OpenAI's own tools, with an option that chat completions
    do not have, or for a model that they do not serve. With `use_previous_response_id`, the request has only the
    messages after the newest answer of Responses, and names that answer.

    Raises the SDK's exceptions, and `ConfigError` for an input, a config, a tool or an option that cannot be read.
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
        use_responses_api: bool | None = None,
        use_previous_response_id: bool = False,
        tiktoken_model_name: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = False,  # LangChain's; ignored
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        CHAT_OPTIONS.check("ChatOpenAI", options, ChatOpenAI.__init__)
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
            clients, model_name or model, stream_usage=stream_usage, use_responses_api=use_responses_api,
            use_previous_response_id=use_previous_response_id, tiktoken_model_name=tiktoken_model_name,
            callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming,
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


def stream_error(sdk: Any, error: Any, http_response: Any) -> Exception:
    """The SDK's exception for an error event of a stream."""
    message = error_text(error) or "An error occurred during streaming"
    return sdk.APIError(message, http_response.request, body=error)  # type: ignore[no-any-return]
