"""The ways in which an application calls the SDKs, and the ways in which a call ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pydantic

from recorder.testing import (
    Answer,
    anthropic_messages_frames,
    openai_chat_frames,
    openai_completion_frames,
    openai_responses_frames,
    scripted,
)

QUESTION: Any = [{"role": "user", "content": "Hi"}]
MODEL = "gpt-5.4-mini"
#: The pieces of the answer.
PIECES = ["Hello", " there", "!"]
TEXT = "".join(PIECES)


class Greeting(pydantic.BaseModel):
    """What `parse` returns."""

    text: str


# -- OpenAI, synchronous; each way yields the text in pieces as the application gets it -----------------------------


def create(client: Any) -> Iterator[str]:
    """`chat.completions.create`."""
    yield client.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message.content


def create_stream(client: Any) -> Iterator[str]:
    """`chat.completions.create(stream=True)`."""
    with client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


def stream_helper(client: Any) -> Iterator[str]:
    """`chat.completions.stream`."""
    with client.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
        for event in stream:
            if event.type == "content.delta":
                yield event.delta


def parse(client: Any) -> Iterator[str]:
    """`chat.completions.parse`."""
    found = client.chat.completions.parse(model=MODEL, messages=QUESTION)
    yield found.choices[0].message.content


def raw(client: Any) -> Iterator[str]:
    """`with_raw_response`."""
    found = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
    yield found.parse().choices[0].message.content


def raw_stream(client: Any) -> Iterator[str]:
    """`with_raw_response`, streamed."""
    found = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, stream=True)
    with found.parse() as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


def streaming_response(client: Any) -> Iterator[str]:
    """`with_streaming_response`."""
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=QUESTION) as found:
        yield found.parse().choices[0].message.content


def with_options(client: Any) -> Iterator[str]:
    """`with_options`."""
    yield from create_stream(client.with_options(timeout=20))


def post(client: Any) -> Iterator[str]:
    """`client.post`."""
    body = {"model": MODEL, "messages": QUESTION}
    yield client.post("/chat/completions", body=body, cast_to=object)["choices"][0]["message"]["content"]


def completions(client: Any) -> Iterator[str]:
    """`completions.create`."""
    yield client.completions.create(model=MODEL, prompt="Hi").choices[0].text


def completions_stream(client: Any) -> Iterator[str]:
    """`completions.create(stream=True)`."""
    with client.completions.create(model=MODEL, prompt="Hi", stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].text:
                yield chunk.choices[0].text


def responses(client: Any) -> Iterator[str]:
    """`responses.create`."""
    yield client.responses.create(model=MODEL, input="Hi").output_text


def responses_stream(client: Any) -> Iterator[str]:
    """`responses.create(stream=True)`."""
    with client.responses.create(model=MODEL, input="Hi", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta


def responses_stream_helper(client: Any) -> Iterator[str]:
    """`responses.stream`."""
    with client.responses.stream(model=MODEL, input="Hi") as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta


# -- OpenAI, asynchronous ---------------------------------------------------------------------------------------


async def async_create(client: Any) -> AsyncIterator[str]:
    """`chat.completions.create`."""
    yield (await client.chat.completions.create(model=MODEL, messages=QUESTION)).choices[0].message.content


async def async_create_stream(client: Any) -> AsyncIterator[str]:
    """`chat.completions.create(stream=True)`."""
    async with await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True) as stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


async def async_stream_helper(client: Any) -> AsyncIterator[str]:
    """`chat.completions.stream`."""
    async with client.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
        async for event in stream:
            if event.type == "content.delta":
                yield event.delta


async def async_raw(client: Any) -> AsyncIterator[str]:
    """`with_raw_response`."""
    found = await client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
    yield found.parse().choices[0].message.content


async def async_with_options(client: Any) -> AsyncIterator[str]:
    """`with_options`."""
    async for piece in async_create_stream(client.with_options(timeout=20)):
        yield piece


async def async_completions_stream(client: Any) -> AsyncIterator[str]:
    """`completions.create(stream=True)`."""
    async with await client.completions.create(model=MODEL, prompt="Hi", stream=True) as stream:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].text:
                yield chunk.choices[0].text


async def async_responses(client: Any) -> AsyncIterator[str]:
    """`responses.create`."""
    yield (await client.responses.create(model=MODEL, input="Hi")).output_text


async def async_responses_stream(client: Any) -> AsyncIterator[str]:
    """`responses.create(stream=True)`."""
    async with await client.responses.create(model=MODEL, input="Hi", stream=True) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta


# -- Anthropic ----------------------------------------------------------------------------------------------------

CLAUDE: Any = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": QUESTION}


def messages(client: Any) -> Iterator[str]:
    """`messages.create`."""
    yield client.messages.create(**CLAUDE).content[0].text


def messages_events(client: Any) -> Iterator[str]:
    """`messages.create(stream=True)`."""
    with client.messages.create(**CLAUDE, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                yield event.delta.text


def messages_stream(client: Any) -> Iterator[str]:
    """`messages.stream`."""
    with client.messages.stream(**CLAUDE) as stream:
        yield from stream.text_stream


def messages_raw(client: Any) -> Iterator[str]:
    """`with_raw_response`."""
    yield client.messages.with_raw_response.create(**CLAUDE).parse().content[0].text


def beta_messages(client: Any) -> Iterator[str]:
    """`beta.messages.create`."""
    yield client.beta.messages.create(**CLAUDE).content[0].text


async def async_messages(client: Any) -> AsyncIterator[str]:
    """`messages.create`."""
    yield (await client.messages.create(**CLAUDE)).content[0].text


async def async_messages_stream(client: Any) -> AsyncIterator[str]:
    """`messages.stream`."""
    async with client.messages.stream(**CLAUDE) as stream:
        async for piece in stream.text_stream:
            yield piece


async def async_beta_messages_stream(client: Any) -> AsyncIterator[str]:
    """`beta.messages.stream`."""
    async with client.beta.messages.stream(**CLAUDE) as stream:
        async for piece in stream.text_stream:
            yield piece


# -- aiohttp, without an SDK; the client is a session with the provider's URL ------------------------------------

CHAT: Any = {"model": MODEL, "messages": QUESTION}


def texts_of(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of each event, as a program without an SDK reads it."""
    for line in lines:
        if line.startswith(b"data: {"):
            event = json.loads(line.removeprefix(b"data: "))
            deltas = [choice["delta"] for choice in event.get("choices", ())] + [event.get("delta") or {}]
            yield from (text for delta in deltas if (text := delta.get("content") or delta.get("text")))


async def session_json(session: Any) -> AsyncIterator[str]:
    """`response.json()`."""
    async with session.post("v1/chat/completions", json=CHAT) as response:
        response.raise_for_status()
        yield (await response.json())["choices"][0]["message"]["content"]


async def session_read(session: Any) -> AsyncIterator[str]:
    """`response.read()`."""
    response = await session.post("v1/chat/completions", data=json.dumps(CHAT).encode())
    response.raise_for_status()
    yield json.loads(await response.read())["choices"][0]["message"]["content"]


async def session_lines_stream(session: Any) -> AsyncIterator[str]:
    """`async for line in response.content`."""
    async with session.post("v1/chat/completions", json=CHAT | {"stream": True}) as response:
        response.raise_for_status()
        async for line in response.content:
            for text in texts_of([line]):
                yield text


async def session_any_stream(session: Any) -> AsyncIterator[str]:
    """`content.iter_any()`."""
    async with session.post("v1/messages", json=CLAUDE | {"stream": True}) as response:
        response.raise_for_status()
        left = b""
        async for data in response.content.iter_any():
            *lines, left = (left + data).split(b"\n")
            for text in texts_of(lines):
                yield text


async def session_chunks_stream(session: Any) -> AsyncIterator[str]:
    """`content.iter_chunks()`."""
    async with session.request(
        "POST", "v1/chat/completions", json=CHAT | {"stream": True}, raise_for_status=True
    ) as response:
        left = b""
        async for data, _ in response.content.iter_chunks():
            *lines, left = (left + data).split(b"\n")
            for text in texts_of(lines):
                yield text


Way = Callable[[Any], Any]
#: The name of an SDK's client -> the ways to call it.
WAYS: dict[str, list[Way]] = {
    "openai.OpenAI": [
        *(
            create,
            create_stream,
            stream_helper,
            parse,
            raw,
            raw_stream,
            streaming_response,
            with_options,
            post,
        ),
        *(completions, completions_stream, responses, responses_stream, responses_stream_helper),
    ],
    "openai.AzureOpenAI": [create, create_stream],
    "openai.AsyncOpenAI": [
        *(async_create, async_create_stream, async_stream_helper, async_raw, async_with_options),
        *(async_completions_stream, async_responses, async_responses_stream),
    ],
    "openai.AsyncOpenAI over aiohttp": [async_create, async_create_stream],
    "openai.AsyncAzureOpenAI": [async_create_stream],
    "anthropic.Anthropic": [messages, messages_events, messages_stream, messages_raw, beta_messages],
    "anthropic.AsyncAnthropic": [async_messages, async_messages_stream, async_beta_messages_stream],
    "aiohttp.ClientSession": [
        *(session_json, session_read, session_lines_stream, session_any_stream, session_chunks_stream)
    ],
}
#: The ways that read a stream.
STREAMED = {
    way
    for ways in WAYS.values()
    for way in ways
    if "stream" in way.__name__ or "with_options" in way.__name__ or way is messages_events
} - {streaming_response}


# -- ends ---------------------------------------------------------------------------------------------------------


def frames_of(client: str, way: Way) -> list[bytes]:
    """Return the frames of the answer in the format that this way reads."""
    if client.startswith("anthropic") or way is session_any_stream:
        return list(anthropic_messages_frames(PIECES))
    if "responses" in way.__name__:
        return list(openai_responses_frames(PIECES))
    if "completions" in way.__name__:
        return list(openai_completion_frames(PIECES))
    return list(openai_chat_frames(PIECES))


def error_of(client: str, status: int, **headers: str) -> Answer:
    """Return an error response of the client's provider."""
    make = Answer.anthropic_error if client.startswith("anthropic") else Answer.error
    return make(status, headers=headers)


def second_time_lucky(client: str) -> Any:
    """Return a script whose first answer is an error after which the SDKs try again."""
    return scripted(error_of(client, 500, **{"retry-after-ms": "1"}), TEXT)
