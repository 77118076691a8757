"""LangChain's models, the ways in which an application calls them, and the ways in which a call ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx2
import pytest

from recorder.testing import (
    Answer,
    anthropic_messages_frames,
    openai_chat_frames,
    openai_responses_frames,
    scripted,
)

langchain_openai: Any = pytest.importorskip("langchain_openai")
langchain_anthropic: Any = pytest.importorskip("langchain_anthropic")
messages: Any = pytest.importorskip("langchain_core.messages")

#: The pieces of the answer.
PIECES = ["Hello", " there", "!"]
TEXT = "".join(PIECES)
MODELS = ("ChatOpenAI", "ChatOpenAI over Responses", "ChatAnthropic")


@contextmanager
def model_of(name: str, url: str, **options: Any) -> Iterator[Any]:
    """Yield a model of LangChain for a provider on this machine; its HTTP client is closed afterwards."""
    with ExitStack() as stack:
        model = _model(name, url, options, http_client=httpx2.Client())
        stack.callback(_http_client_of(model, "client").close)
        yield model


@asynccontextmanager
async def async_model_of(name: str, url: str, **options: Any) -> AsyncIterator[Any]:
    """Yield the same for coroutines."""
    async with AsyncExitStack() as stack:
        model = _model(name, url, options, http_async_client=httpx2.AsyncClient())
        stack.push_async_callback(_http_client_of(model, "async_client").aclose)
        yield model


def _model(name: str, url: str, options: dict[str, Any], **clients: Any) -> Any:
    options = {"api_key": "sk-canary-17", "max_retries": 1, **options}
    if name == "ChatAnthropic":
        module = langchain_anthropic.chat_models
        module._get_default_httpx_client.cache_clear()
        module._get_default_async_httpx_client.cache_clear()
        return langchain_anthropic.ChatAnthropic(model="claude-haiku-5-5", base_url=url, **options)
    over = {"use_responses_api": True} if "Responses" in name else {}
    return langchain_openai.ChatOpenAI(
        model="gpt-5.4-mini", base_url=f"{url}/v1", **over, **clients, **options
    )


def _http_client_of(model: Any, kind: str) -> Any:
    """Return the HTTP client of a model, which Anthropic's makes itself."""
    if isinstance(model, langchain_anthropic.ChatAnthropic):
        return getattr(model, f"_{kind}")._client
    return getattr(model, f"root_{kind}")._client


# -- ways, each yields the text in pieces as the application gets it --------------------------------------------------


def invoke(model: Any) -> Iterator[str]:
    """`invoke`."""
    yield model.invoke("Hi").text


def stream(model: Any) -> Iterator[str]:
    """`stream`."""
    for chunk in model.stream("Hi"):
        yield chunk.text


def batch(model: Any) -> Iterator[str]:
    """`batch`."""
    yield from [message.text for message in model.batch(["Hi"])]


def generate(model: Any) -> Iterator[str]:
    """`generate`."""
    yield model.generate([[messages.HumanMessage("Hi")]]).generations[0][0].message.text


def events(model: Any) -> Iterator[str]:
    """`stream_events` (v3)."""
    yield from model.stream_events("Hi", version="v3").text


def chain(model: Any) -> Iterator[str]:
    """a chain that is streamed."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    yield from (ChatPromptTemplate([("user", "{word}")]) | model | StrOutputParser()).stream({"word": "Hi"})


async def ainvoke(model: Any) -> AsyncIterator[str]:
    """`ainvoke`."""
    yield (await model.ainvoke("Hi")).text


async def astream(model: Any) -> AsyncIterator[str]:
    """`astream`."""
    async for chunk in model.astream("Hi"):
        yield chunk.text


async def abatch(model: Any) -> AsyncIterator[str]:
    """`abatch`."""
    for message in await model.abatch(["Hi"]):
        yield message.text


async def agenerate(model: Any) -> AsyncIterator[str]:
    """`agenerate`."""
    yield (await model.agenerate([[messages.HumanMessage("Hi")]])).generations[0][0].message.text


async def aevents(model: Any) -> AsyncIterator[str]:
    """`astream_events` (v2)."""
    async for event in model.astream_events("Hi", version="v2"):
        if event["event"] == "on_chat_model_stream":
            yield event["data"]["chunk"].text


async def aevents_v3(model: Any) -> AsyncIterator[str]:
    """`astream_events` (v3)."""
    async for piece in (await model.astream_events("Hi", version="v3")).text:
        yield piece


Way = Callable[[Any], Any]
WAYS: list[Way] = [
    *(invoke, stream, batch, generate, events, chain),
    *(ainvoke, astream, abatch, agenerate, aevents, aevents_v3),
]
#: The ways that read a stream.
STREAMED: list[Way] = [stream, events, chain, astream, aevents, aevents_v3]
#: The ways whose stream ends when its reader leaves; a chain reads on to the end.
LEFT: list[Way] = [stream, astream, aevents]


# -- ends ---------------------------------------------------------------------------------------------------------


def frames_of(model: str) -> list[bytes]:
    """Return the frames of the answer in the format of this model."""
    if model == "ChatAnthropic":
        return list(anthropic_messages_frames(PIECES))
    return list(openai_responses_frames(PIECES) if "Responses" in model else openai_chat_frames(PIECES))


def error_of(model: str, status: int, **headers: str) -> Answer:
    """Return an error response of the model's provider."""
    make = Answer.anthropic_error if model == "ChatAnthropic" else Answer.error
    return make(status, headers=headers)


def second_time_lucky(model: str) -> Any:
    """Return a script whose first answer is an error after which the SDKs try again."""
    return scripted(error_of(model, 500, **{"retry-after-ms": "1"}), TEXT)
