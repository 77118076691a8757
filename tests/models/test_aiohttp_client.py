"""Unusual responses of gateways and proxies: the client of event loops accepts what the SDK's default one accepts."""

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
    """A body in two chunks."""
    parts = (body[:100], body[100:])
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


@contextmanager
def answering(response: bytes, *, pieces: int | None = None, times: int = 1) -> Iterator[str]:
    """The URL of a server that answers with these bytes, in pieces of this size, several times a connection."""
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
            pass  # whoever asked has left
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
    """One request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65_536)):
            raise OSError("nobody asks any more")
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


async def heard(model: Any) -> str:
    """What a stream says."""
    return "".join([chunk.text async for chunk in model.astream("Hi")])


def odd_heads(body: bytes) -> dict[str, bytes]:
    """Responses that h11 takes."""
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
def test_a_head_that_httpx_takes(make: Callable[..., Any], body: bytes, pieces: int | None) -> None:
    """Each unusual head, in pieces of each size."""
    for name, response in odd_heads(body).items():
        with answering(response, pieces=pieces if len(response) < 9_000 else None) as url:
            assert (name, asyncio.run(heard(make(url)))) == (name, "Hello")


def test_the_sdks_own_client_takes_them_too() -> None:
    """So ours must accept them, too."""

    async def bare(url: str) -> str:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=[], stream=True)
            choices = [choice async for chunk in stream for choice in chunk.choices]
            return "".join(choice.delta.content or "" for choice in choices)

    for name, response in odd_heads(OPENAI).items():
        with answering(response) as url:
            assert (name, asyncio.run(bare(url))) == (name, "Hello")


def test_a_head_without_end_is_refused() -> None:
    """The limit is httpx's, and the error is the SDK's."""
    response = STATUS + b"x-a: b\r\n" * (MAX_HEAD // 8) + b"x-b: c\r\n" * 20_000
    with answering(response) as url:
        with pytest.raises(openai.APIConnectionError):
            asyncio.run(heard(chat(url)))
        with pytest.raises(anthropic.APIConnectionError):
            asyncio.run(heard(claude(url)))


def test_lengths_that_differ_are_refused() -> None:
    """The end of the body is unknown. A client that guessed could read a second response inside the first."""
    lengths = b"content-length: %d\r\ncontent-length: 5\r\n" % len(OPENAI)
    with (
        answering(STATUS + lengths + b"\r\n" + OPENAI) as url,
        pytest.raises(openai.APIConnectionError),
    ):
        asyncio.run(heard(chat(url)))


def test_a_connection_is_used_again() -> None:
    """Also if each head was corrected. After a body that was too long it is closed."""
    good = STATUS + b"content-length: 5\r\n" + CHUNKED + b"\r\n" + chunks(OPENAI)
    long = STATUS + b"content-length: %d\r\n\r\n" % len(OPENAI) + OPENAI + b"x"

    async def thrice(url: str) -> list[str]:
        model = chat(url)
        return [await heard(model) for _ in range(3)]

    for response in (good, long):
        with answering(response, times=3 if response is good else 1) as url:
            assert asyncio.run(thrice(url)) == ["Hello"] * 3


def test_a_user_in_the_url_goes_into_a_header() -> None:
    """As with httpx: a gateway with a password of its own, and the provider's key beside it."""
    with LoopbackProvider("Hello") as provider:
        url = provider.url.replace("://", "://me:pass%40word@")
        assert asyncio.run(heard(claude(url))) == "Hello"
        assert chat(url).invoke("Hi").content == "Hello"
        assert asyncio.run(heard(chat(url))) == "Hello"
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
def test_a_head_is_corrected(head: bytes, right: bytes) -> None:
    """Only if it has two statements of its length. All other heads stay unchanged."""
    assert fix_length(head) == right
