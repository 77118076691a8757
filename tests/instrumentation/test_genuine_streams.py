"""Every genuine stream through an attached client: what is recorded equals what the SDK gives the application."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import anthropic
import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.replay import Replay
from recorder.testing import Answer, LoopbackProvider
from tests.genuine import Stream, anthropic_streams, chat_streams, name_of, responses_streams
from tests.oracle import new_url, sql

STREAMS = [*chat_streams(), *anthropic_streams(), *responses_streams()]
#: The sizes of the HTTP chunks, in which the body is cut.
CHUNKS = {"as frames": None, "small pieces": (1, 2, 3, 50), "large pieces": 4096}

every_stream = pytest.mark.parametrize("stream", STREAMS or [None], ids=lambda each: each and name_of(each))


class Got(NamedTuple):
    """What the application got."""

    text: str
    error: BaseException | None


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


def body_of(stream: Stream) -> dict[str, Any]:
    """Return the arguments of the call."""
    body = {"model": (stream.request or {}).get("model", "m"), "stream": True}
    if is_responses(stream):
        return body | {"input": "Hi"}
    question = {"messages": [{"role": "user", "content": "Hi"}]}
    return body | question | ({"max_tokens": 100} if stream.path.endswith("/messages") else {})


def is_responses(stream: Stream) -> bool:
    """Return whether the stream is one of the Responses API."""
    return "responses" in stream.path.split("/")


def text_in(event: Any) -> str:
    """Return the text that one object of an SDK adds to the first choice's answer."""
    if getattr(event, "type", None) == "response.output_text.delta":
        return str(event.delta)
    if getattr(event, "type", None) == "content_block_delta":
        return getattr(event.delta, "text", None) or ""
    choices = [each for each in getattr(event, "choices", None) or () if each.index == 0]
    return "".join(each.delta.content or "" for each in choices if each.delta is not None)


def read(stream: Stream, provider: LoopbackProvider, history: ChatHistoryCallback) -> Got:
    """Read the stream with the synchronous client."""
    with _client(stream, provider, "") as client:
        attach(client, callbacks=[history])
        text = ""
        try:
            with _resource(stream, client).create(**body_of(stream)) as events:
                for event in events:
                    text += text_in(event)
        except Exception as error:
            return Got(text, error)
        return Got(text, None)


async def read_async(stream: Stream, provider: LoopbackProvider, history: ChatHistoryCallback) -> Got:
    """Read the stream on an event loop."""
    async with _client(stream, provider, "Async") as client:
        attach(client, callbacks=[history])
        text = ""
        try:
            async with await _resource(stream, client).create(**body_of(stream)) as events:
                async for event in events:
                    text += text_in(event)
        except Exception as error:
            return Got(text, error)
        return Got(text, None)


async def read_session(stream: Stream, provider: LoopbackProvider, history: ChatHistoryCallback) -> bytes:
    """Read the body with a session of aiohttp."""
    async with aiohttp.ClientSession() as session:
        attach(session, callbacks=[history])
        headers = {"authorization": "Bearer k"}
        url = provider.url + paths_of(stream)
        async with session.post(url, json=body_of(stream), headers=headers) as response:
            return b"".join([data async for data in response.content.iter_any()])


def paths_of(stream: Stream) -> str:
    """Return the path that the SDK sends to."""
    if is_responses(stream):
        return "/v1/responses"
    return "/v1/messages" if stream.path.endswith("/messages") else "/v1/chat/completions"


def _client(stream: Stream, provider: LoopbackProvider, prefix: str) -> Any:
    if stream.path.endswith("/messages"):
        return getattr(anthropic, f"{prefix}Anthropic")(base_url=provider.url, api_key="k", max_retries=0)
    return getattr(openai, f"{prefix}OpenAI")(base_url=provider.base_url, api_key="k", max_retries=0)


def _resource(stream: Stream, client: Any) -> Any:
    if is_responses(stream):
        return client.responses
    return client.messages if stream.path.endswith("/messages") else client.chat.completions


def answer_of(stream: Stream, chunks: Any) -> Answer:
    """Return the provider's response."""
    return Answer(
        status=stream.status,
        body=stream.body,
        headers={"content-type": stream.content_type},
        chunks=chunks or 2**20,
    )


@pytest.mark.matrix
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("way", ["plain", "on a loop"])
@every_stream
def test_a_genuine_stream_is_recorded_as_the_sdk_reads_it(
    stream: Stream | None, way: str, chunks: Any, url: str
) -> None:
    """Text and error are the application's, and the stored frames joined are the body."""
    if stream is None:
        pytest.skip("no genuine provider streams")
    with LoopbackProvider(answer_of(stream, chunks)) as provider, ChatHistoryCallback(url) as history:
        if way == "plain":
            got = read(stream, provider, history)
        else:
            got = asyncio.run(read_async(stream, provider, history))
    [(id, status, error_type)] = sql(url, "SELECT id, status, error_type FROM runs")
    if got.error is None:
        assert (status in ("complete", "incomplete"), error_type) == (True, None), (status, error_type)
        assert _recorded_text(stream, url) == got.text
    else:
        assert (status, error_type) == (
            "error",
            f"{type(got.error).__module__}.{type(got.error).__qualname__}",
        )
    with Replay(url) as replay:
        stored = b"".join(replay.frames(id, speed=None))
    assert stream.body.startswith(stored)
    assert len(stored) >= len(stream.body.rstrip()) or got.error is not None


@pytest.mark.matrix
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@every_stream
def test_a_genuine_stream_is_recorded_through_aiohttp_as_through_the_sdk(
    stream: Stream | None, chunks: Any, tmp_path: Path
) -> None:
    """Tokens, status and usage are equal. An error status has aiohttp's exception, other errors have the SDK's."""
    if stream is None:
        pytest.skip("no genuine provider streams")
    urls = [new_url(tmp_path, name) for name in ("sdk.db", "aiohttp.db")]
    with LoopbackProvider(answer_of(stream, chunks)) as provider:
        with ChatHistoryCallback(urls[0]) as history:
            read(stream, provider, history)
        with ChatHistoryCallback(urls[1]) as history:
            body = asyncio.run(read_session(stream, provider, history))
    assert body == stream.body
    by_sdk, by_aiohttp = (_stored(url) for url in urls)
    if stream.status >= 400:
        by_sdk["error_type"] = "aiohttp.client_exceptions.ClientResponseError"
        by_sdk["error_message"] = by_aiohttp["error_message"]
    assert by_aiohttp == by_sdk


def _stored(url: str) -> dict[str, Any]:
    names = ("status", "error_type", "error_message", "token_count", "usage")
    [row] = sql(url, f"SELECT {', '.join(names)} FROM runs")
    tokens = sql(url, "SELECT kind, idx, text FROM tokens ORDER BY seq")
    return dict(zip(names, row, strict=True)) | {"tokens": tokens}


def _recorded_text(stream: Stream, url: str) -> str:
    """Return the text of the first choice; content blocks of the other formats have an index each."""
    rows = sql(url, "SELECT text, idx FROM tokens WHERE kind = 'text' ORDER BY seq")
    has_choices = stream.path.endswith("/completions")
    return "".join(text for text, idx in rows if not has_choices or idx == "0")


def test_a_stream_in_random_pieces_is_recorded_equally(url: str) -> None:
    """The seed of the pieces is printed."""
    if not STREAMS:
        pytest.skip("no genuine provider streams")
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    stream = chance.choice([each for each in STREAMS if each.status == 200])
    sizes = [chance.randrange(1, 300) for _ in range(50)]
    with LoopbackProvider(answer_of(stream, sizes)) as provider, ChatHistoryCallback(url) as history:
        got = read(stream, provider, history)
    if got.error is None:
        assert _recorded_text(stream, url) == got.text
