"""OpenAI's chat completions, as one of the two APIs of `ChatOpenAI`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorder.messages import BaseMessage, messages_from
from recorder.runs.chat_run import ChatRun
from recorder.runs.run import ErrorOf, Request
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.openai.choices import requested_choices
from recorder.wire.openai.events import OpenAIEvents
from recorder.wire.openai.request import request_messages
from recorder.wire.reply import Translator


class ChatCompletionsApi:
    """Makes the requests and the runs of chat completions."""

    def __init__(self, *, stream_usage: bool) -> None:
        self._stream_usage = stream_usage

    def body(
        self, messages: Sequence[Any], options: Mapping[str, Any], *, host: str, stream: bool
    ) -> dict[str, Any]:
        """The arguments of the SDK's `create`. The model is one of the options."""
        body = {"model": options["model"], "messages": request_messages(messages, host), **options}
        return with_usage(body, stream=stream, usage=self._stream_usage)

    def messages(self, given: Sequence[Any], body: Mapping[str, Any]) -> list[BaseMessage]:
        """The messages of a request, for the handlers."""
        return messages_from(given)

    def run(self, request: Request, error_of: ErrorOf, host: str) -> ChatRun:
        """A new run of this request."""
        translator = OpenAIChat()
        set_choices(translator, request)
        return ChatRun(request, translator, error_of, host=host)

    def resource(self, client: Any) -> Any:
        """The part of an SDK client whose `create` sends the request."""
        return client.chat.completions


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
