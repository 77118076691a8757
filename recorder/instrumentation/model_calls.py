"""Tells which HTTP requests are model calls, and reads their messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from recorder.core.json import loads
from recorder.messages import BaseMessage, HumanMessage, SystemMessage
from recorder.messages.convert import readable_messages
from recorder.runs.run import CHAT, TEXT_MODEL
from recorder.wire.openai.responses import WIRE as RESPONSES
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.request_hash import input_hash

#: Larger bodies (bytes) are not read. The run is recorded without its messages.
MAX_BODY = 64 * 2**20
#: Reading a body takes 19 microseconds for 40 messages and 8 milliseconds for an image of 5 MB. A larger body (bytes)
#: is not read on an event loop.
LARGE_BODY = 256 * 1024
#: The path of a response that was made before.
_RESUMED = re.compile(r"/responses/[\w-]+$")


def _chat_messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    return readable_messages(body["messages"])


def _anthropic_messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    system = body.get("system")
    instructions: list[BaseMessage] = (
        [SystemMessage(system)] if isinstance(system, (str, list)) and system else []
    )
    return [*instructions, *readable_messages(body["messages"])]


def _prompts(body: Mapping[str, Any]) -> list[BaseMessage]:
    """A prompt is a text, tokens as numbers, or a list of these."""
    prompt = body["prompt"]
    is_list = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return [
        HumanMessage(each if isinstance(each, str) else repr(each))
        for each in (prompt if is_list else [prompt])
    ]


class Endpoint(NamedTuple):
    """An endpoint that answers model calls."""

    wire: str
    #: The SDK whose exceptions and client speak this format; also LangSmith's name of the provider.
    sdk: str
    #: The keys of the body that may hold the input.
    input_keys: tuple[str, ...]
    messages: Callable[[Mapping[str, Any]], list[BaseMessage]]
    model_type: str = CHAT
    #: The key of the body that names the model.
    model_key: str = "model"


#: The end of a URL's path -> the endpoint. A longer end comes before its own end.
ENDPOINTS = {
    "/chat/completions": Endpoint("openai.chat", "openai", ("messages",), _chat_messages),
    # Mistral answers these two in the form of a chat completion.
    "/agents/completions": Endpoint(
        "openai.chat", "openai", ("messages",), _chat_messages, model_key="agent_id"
    ),
    "/fim/completions": Endpoint("openai.chat", "openai", ("prompt",), _prompts),
    "/completions": Endpoint("openai.completions", "openai", ("prompt",), _prompts, TEXT_MODEL),
    "/responses": Endpoint(
        RESPONSES, "openai", ("input", "prompt", "previous_response_id"), responses_messages
    ),
    "/v1/messages": Endpoint("anthropic.messages", "anthropic", ("messages",), _anthropic_messages),
}


_ENDS = tuple(ENDPOINTS)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What the request of a model call says."""

    endpoint: Endpoint
    #: The JSON body; empty if it is larger than `MAX_BODY`.
    body: dict[str, Any]
    messages: list[BaseMessage]
    #: The size of the body (bytes).
    size: int
    #: As `input_hash`; empty for a body that was not read.
    input_hash: str = ""


def endpoint_of(request: Any) -> Endpoint | None:
    """The endpoint that a request of an HTTP client goes to; None if no model answers there."""
    path = request.url.path
    if request.method == "POST":
        if not path.endswith(_ENDS):  # most requests are no model calls, and this is one step
            return None
        return next((found for end, found in ENDPOINTS.items() if path.endswith(end)), None)
    is_resumed = (
        request.method == "GET" and _RESUMED.search(path) and request.url.params.get("stream") == "true"
    )
    return ENDPOINTS["/responses"] if is_resumed else None


def is_large(request: Any) -> bool:
    """Whether reading the request's body would hold up an event loop."""
    return len(_content_of(request) or b"") > LARGE_BODY


def model_call_of(request: Any, endpoint: Endpoint) -> ModelCall | None:
    """The model call of a request to this endpoint; None for other services whose path is the same.

    A model call has a JSON object as its body, with a model and an input.
    """
    if request.method == "GET":
        return _resumed_call(request, endpoint)
    content = _content_of(request)
    if content is None:
        return None
    if len(content) > MAX_BODY:
        return ModelCall(endpoint, {}, [], len(content))
    try:
        body = loads(content)
    except ValueError:
        return None
    # The path of an Azure client names the model, too.
    if not isinstance(body, dict) or not (
        isinstance(body.get(endpoint.model_key), str) or "/deployments/" in request.url.path
    ):
        return None
    if not any(isinstance(body.get(key), (list, str, dict)) for key in endpoint.input_keys):
        return None
    return ModelCall(endpoint, body, endpoint.messages(body), len(content), input_hash(body))


def _resumed_call(request: Any, endpoint: Endpoint) -> ModelCall:
    """The call that reads a response in the background again, or from an event on. It sends no messages."""
    query = request.url.params
    body: dict[str, Any] = {"stream": True, "response_id": request.url.path.rpartition("/")[2]}
    if (number := query.get("starting_after")) is not None:
        body["starting_after"] = number
    return ModelCall(endpoint, body, [], 0, input_hash(body))


def _content_of(request: Any) -> bytes | None:
    """The body; None if the application sends it as a stream, as uploads are sent."""
    try:
        content: bytes = request.content
    except Exception:  # the `RequestNotRead` of either HTTP library
        return None
    return content
