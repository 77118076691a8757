"""The HTTP client for event loops accepts each unusual response that the SDK's default client accepts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest

from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.models.aiohttp_client import MAX_HEAD, fix_length
from recorder.testing import LoopbackProvider, anthropic_messages_frames, openai_chat_frames

OPENAI = b"".join(openai_chat_frames(["Hel", "lo"]))
CLAUDE = b"".join(anthropic_messages_frames(["Hel", "lo"]))
STATUS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"


def chunks(body: bytes, trailers: bytes = b"") -> bytes:
    """Return a body in two chunks of HTTP."""
    parts = (body[:100], body[100:])
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


@contextmanager
def answering(response: bytes, *, pieces: int | None = None, times: int = 1) -> Iterator[str]:
    """Yield the URL of a server that sends this response in pieces of this size, `times` times on each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for _ in range(times):
                read_request(connection)
                size = pieces or len(response)
                for start in range(0, len(response), size):
                    connection.sendall(response[start : start + size])
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has closed the connection
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            connection.close()


def read_request(connection: socket.socket) -> bytes:
    """Read one request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65_536)):
            raise OSError("the client has closed the connection")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65_536)
    return head


def chat(url: str, **options: Any) -> Any:
    return ChatOpenAI("gpt-4o-mini", base_url=f"{url}/v1", api_key="k", max_retries=0, **options)


def claude(url: str, **options: Any) -> Any:
    return ChatAnthropic("claude-haiku-4-5", base_url=url, api_key="k", max_retries=0, **options)


async def answer_of(model: Any) -> str:
    """Return the text of a stream."""
    return "".join([chunk.text async for chunk in model.astream("Hi")])


def odd_heads(body: bytes) -> dict[str, bytes]:
    """Return unusual responses that h11 accepts."""
    length = b"content-length: %d\r\n" % len(body)
    return {
        "a length before chunks": STATUS + b"content-length: 5\r\n" + CHUNKED + b"\r\n" + chunks(body),
        "a length behind chunks": STATUS + CHUNKED + b"Content-Length: 5\r\n\r\n" + chunks(body),
        "the length twice": STATUS + length + b"x-a: b\r\n" + length + b"\r\n" + body,
        "the length in a list": STATUS + b"content-length: %d, %d\r\n\r\n" % (len(body), len(body)) + body,
        "a long line": STATUS + b"x-policy: " + b"a" * 60_000 + b"\r\n" + CHUNKED + b"\r\n" + chunks(body),
        "many lines": STATUS + b"x-a: b\r\n" * 3_000 + CHUNKED + b"\r\n" + chunks(body),
        "many trailers": STATUS + CHUNKED + b"\r\n" + chunks(body, b"x-a: b\r\n" * 300),
        "more than the length": STATUS + length + b"\r\n" + body + b"and more",
        "hints before it": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 2
        + STATUS + b"content-length: 5\r\n" + CHUNKED + b"\r\n" + chunks(body),
        "lines that end in LF": (STATUS + b"content-length: 5\r\n" + CHUNKED + b"\r\n").replace(b"\r\n", b"\n")
        + chunks(body),
    }  # fmt: skip


@pytest.mark.parametrize("pieces", [None, 7])
@pytest.mark.parametrize(("make", "body"), [(chat, OPENAI), (claude, CLAUDE)], ids=["openai", "anthropic"])
def test_unusual_response_heads_are_accepted(
    make: Callable[..., Any], body: bytes, pieces: int | None
) -> None:
    """Each head is accepted, also in small pieces."""
    for name, response in odd_heads(body).items():
        with answering(response, pieces=pieces if len(response) < 9_000 else None) as url:
            assert (name, asyncio.run(answer_of(make(url)))) == (name, "Hello")


def test_the_sdks_default_client_accepts_the_same_heads() -> None:
    """Otherwise our client would not need to accept them."""

    async def bare(url: str) -> str:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=[], stream=True)
            choices = [choice async for chunk in stream for choice in chunk.choices]
            return "".join(choice.delta.content or "" for choice in choices)

    for name, response in odd_heads(OPENAI).items():
        with answering(response) as url:
            assert (name, asyncio.run(bare(url))) == (name, "Hello")


def test_an_endless_response_head_is_refused() -> None:
    """The limit is that of httpx, and the error is the SDK's."""
    response = STATUS + b"x-a: b\r\n" * (MAX_HEAD // 8) + b"x-b: c\r\n" * 20_000
    with answering(response) as url:
        with pytest.raises(openai.APIConnectionError):
            asyncio.run(answer_of(chat(url)))
        with pytest.raises(anthropic.APIConnectionError):
            asyncio.run(answer_of(claude(url)))


def test_contradictory_content_lengths_are_refused() -> None:
    """A client that guessed the length could read a second response inside of the first one."""
    lengths = b"content-length: %d\r\ncontent-length: 5\r\n" % len(OPENAI)
    with (
        answering(STATUS + lengths + b"\r\n" + OPENAI) as url,
        pytest.raises(openai.APIConnectionError),
    ):
        asyncio.run(answer_of(chat(url)))


def test_a_connection_with_unusual_heads_is_reused() -> None:
    """After a body that was too long it is closed."""
    good = STATUS + b"content-length: 5\r\n" + CHUNKED + b"\r\n" + chunks(OPENAI)
    long = STATUS + b"content-length: %d\r\n\r\n" % len(OPENAI) + OPENAI + b"x"

    async def thrice(url: str) -> list[str]:
        model = chat(url)
        return [await answer_of(model) for _ in range(3)]

    for response in (good, long):
        with answering(response, times=3 if response is good else 1) as url:
            assert asyncio.run(thrice(url)) == ["Hello"] * 3


def test_credentials_in_the_url_are_sent_as_basic_authorization() -> None:
    """A gateway may have a password of its own, as with httpx."""
    with LoopbackProvider("Hello") as provider:
        url = provider.url.replace("://", "://me:pass%40word@")
        assert asyncio.run(answer_of(claude(url))) == "Hello"
        assert chat(url).invoke("Hi").content == "Hello"
        assert asyncio.run(answer_of(chat(url))) == "Hello"
        headers = [request["headers"]["authorization"] for request in provider.requests]
    assert headers == ["Basic bWU6cGFzc0B3b3Jk"] * 3


@pytest.mark.parametrize(
    ("head", "right"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nA: b\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5,5\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-Content-Length: 5\r\nX-Transfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-Content-Length: 5\r\nX-Transfer-Encoding: chunked\r\n\r\n",
        ),
    ],
)
def test_a_head_with_two_lengths_is_corrected(head: bytes, right: bytes) -> None:
    """All other heads are unchanged."""
    assert fix_length(head) == right
