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
from recorder.wire.gemini.request import gemini_messages, is_gemini_request
from recorder.wire.gemini.stream import WIRE as GEMINI
from recorder.wire.ollama.request import (
    chat_messages,
    generate_messages,
    is_chat_request,
    is_generate_request,
)
from recorder.wire.ollama.stream import CHAT_WIRE, GENERATE_WIRE
from recorder.wire.openai.responses import WIRE as RESPONSES
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.request_hash import input_hash

#: Larger bodies (bytes) are not read. The run is recorded without its messages.
MAX_BODY = 64 * 2**20
#: Reading a body takes 19 microseconds for 40 messages and 8 milliseconds for an image of 5 MB. A larger body (bytes)
#: is not read on an event loop.
LARGE_BODY = 256 * 1024
#: The end of a path of the Gemini API or of Vertex AI, which names the model.
_MODEL = re.compile(
    r"(?:/models/|/(?=tunedModels/|endpoints/))(?P<model>(?:tunedModels/|endpoints/)?[^/:]+):\w+$"
)
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


def _streams_if_true(body: Mapping[str, Any]) -> bool:
    return body.get("stream") is True


def _streams_unless_false(body: Mapping[str, Any]) -> bool:
    return body.get("stream") is not False


def _always(body: Mapping[str, Any]) -> bool:
    return True


def _never(body: Mapping[str, Any]) -> bool:
    return False


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
    #: The path, where it names the model in a group of that name.
    path: re.Pattern[str] | None = None
    #: Whether a body with a model and an input is a request of this format: strangers may have the same path.
    accepts: Callable[[Mapping[str, Any]], bool] = _always
    #: Whether a body asks for a stream.
    streams: Callable[[Mapping[str, Any]], bool] = _streams_if_true


_GEMINI = Endpoint(
    GEMINI,
    "google_genai",
    ("contents",),
    gemini_messages,
    path=_MODEL,
    accepts=is_gemini_request,
    streams=_never,
)

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
    ":generateContent": _GEMINI,
    ":streamGenerateContent": _GEMINI._replace(streams=_always),
    "/api/chat": Endpoint(
        CHAT_WIRE, "ollama", ("messages",), chat_messages, accepts=is_chat_request, streams=_streams_unless_false
    ),
    "/api/generate": Endpoint(
        GENERATE_WIRE, "ollama", ("prompt",), generate_messages, TEXT_MODEL, accepts=is_generate_request,
        streams=_streams_unless_false,
    ),
}  # fmt: skip


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
    #: Whether the request asks for a stream.
    stream: bool = False

    @property
    def model_type(self) -> str:
        """The endpoint's type; but a completion of more than plain prompts is a chat, which has messages for it."""
        is_plain = all(each.role == "user" and isinstance(each.content, str) for each in self.messages)
        return self.endpoint.model_type if is_plain else CHAT


def endpoint_of(request: Any) -> Endpoint | None:
    """The endpoint that a request of an HTTP client goes to; None if no model answers there."""
    path = request.url.path
    if request.method == "POST":
        if not path.endswith(_ENDS):  # most requests are no model calls, and this is one step
            return None
        found = next(found for end, found in ENDPOINTS.items() if path.endswith(end))
        return found if found.path is None or found.path.search(path) else None
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
    content, path = _content_of(request), request.url.path
    if content is None:
        return None
    named = _named_model(endpoint, path)
    if len(content) > MAX_BODY:
        return ModelCall(endpoint, named, [], len(content), stream=endpoint.streams({}))
    try:
        body = loads(content)
    except ValueError:
        return None
    if not isinstance(body, dict) or not _is_call(endpoint, body := {**body, **named}, path):
        return None
    messages, stream = endpoint.messages(body), endpoint.streams(body)
    return ModelCall(endpoint, body, messages, len(content), input_hash(body), stream)


def _named_model(endpoint: Endpoint, path: str) -> dict[str, Any]:
    """The model that the path names, as a field of the body."""
    found = endpoint.path.search(path) if endpoint.path is not None else None
    return {"model": found["model"]} if found is not None else {}


def _is_call(endpoint: Endpoint, body: Mapping[str, Any], path: str) -> bool:
    # The path of an Azure client names the model, too.
    if not isinstance(body.get(endpoint.model_key), str) and "/deployments/" not in path:
        return False
    has_input = any(isinstance(body.get(key), (list, str, dict)) for key in endpoint.input_keys)
    return has_input and endpoint.accepts(body)


def _resumed_call(request: Any, endpoint: Endpoint) -> ModelCall:
    """The call that reads a response in the background again, or from an event on. It sends no messages."""
    query = request.url.params
    body: dict[str, Any] = {"stream": True, "response_id": request.url.path.rpartition("/")[2]}
    if (number := query.get("starting_after")) is not None:
        body["starting_after"] = number
    return ModelCall(endpoint, body, [], 0, input_hash(body), stream=True)


def _content_of(request: Any) -> bytes | None:
    """The body; None if the application sends it as a stream, as uploads are sent."""
    try:
        content: bytes = request.content
    except Exception:  # the `RequestNotRead` of either HTTP library
        return None
    return content
