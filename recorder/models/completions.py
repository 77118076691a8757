"""`OpenAI`: OpenAI's legacy completions, of OpenAI and of other servers that have them, over the official SDK."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.callbacks.dispatch import buffer_string
from recorder.messages import messages_from
from recorder.models.chat_completions import set_choices, with_usage
from recorder.models.create_options import COMPLETION_OPTIONS
from recorder.models.openai import openai_clients, stream_error
from recorder.models.sdk_model import SdkModel
from recorder.models.tokens import TokenCounter
from recorder.runs.completion_run import CompletionRun
from recorder.runs.run import TEXT_MODEL, Request
from recorder.wire.openai.completions import OpenAICompletions
from recorder.wire.reply import Translator

#: LangChain's defaults; the API's own limit is 16 tokens.
DEFAULT_MODEL = "gpt-3.5-turbo-instruct"
TEMPERATURE = 0.7
MAX_TOKENS = 256


class OpenAI(TokenCounter, SdkModel[str, str]):
    """A completion model: text in, text out. Arguments and defaults are those of LangChain's `OpenAI`.

    `options` are those of the SDK's `create` (`n`, `best_of`, `logprobs`, `echo`, `suffix`, ...); an option of None
    is not sent. `timeout` is in seconds; its default is the SDK's. `stream_usage` asks for the usage in streams
    (default: True). `invoke` returns a `str`, and a stream yields pieces of it. Raises the SDK's exceptions, and
    `ConfigError` for an input or a config that cannot be read.
    """

    provider_name = "openai"
    model_type = TEXT_MODEL

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        model_name: str | None = None,
        temperature: float | None = TEMPERATURE,
        max_tokens: int | None = MAX_TOKENS,
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
        tiktoken_model_name: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        batch_size: int | None = None,  # LangChain's; ignored: each prompt is one request
        verbose: bool = False,  # LangChain's; ignored
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        COMPLETION_OPTIONS.check("OpenAI", options, OpenAI.__init__)
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
            clients, callbacks=callbacks, tags=tags, metadata=metadata, name=name, streaming=streaming,
            options={"temperature": temperature, "max_tokens": max_tokens, **(model_kwargs or {}), **options},
        )  # fmt: skip
        self.model_name = model_name or model
        self.stream_usage = stream_usage
        self.tiktoken_model_name = tiktoken_model_name

    @property
    def model(self) -> str:
        """The name of the model, as requests have it."""
        return self.model_name

    def _input_of(self, input: Any) -> str:
        """The prompt. Messages become one text with a line for each, "Human: ...", as in LangChain."""
        if callable(to_string := getattr(input, "to_string", None)):  # a prompt value
            return str(to_string())
        return input if isinstance(input, str) else buffer_string(messages_from(input))

    def _body(self, prompt: str, options: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        body = {"model": self.model_name, "prompt": prompt, **options}
        return with_usage(body, stream=stream, usage=self.stream_usage)

    def _open_run(self, request: Request) -> CompletionRun:
        translator = self._translator()
        set_choices(translator, request)
        return CompletionRun(request, translator, self._stream_error)

    def _translator(self) -> Translator:
        return OpenAICompletions()

    def _resource(self, client: Any) -> Any:
        return client.completions

    def _stream_error(self, error: Any, http_response: Any) -> Exception:
        return stream_error(self._clients.sdk, error, http_response)
