"""Requests that are malformed, too large, slow or malicious, and clients that stop: no error of the server, no hang."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from recorder.replay import Replay
from recorder.testing import LoopbackProvider
from tests.oracle import new_url, sql
from tests.server.proxy.calls import (
    ASK,
    CHAT,
    OPENING,
    frame,
    piece,
)
from tests.server.proxy.proxying import RawUpstream, proxying, response
from tests.server.serving import CLIENT


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["/openai/../x", "/openai/v1/%2e%2e/x", "/openai/v1/..%2f..%2fx", "/openai/v1/..%5cx", "/openai/./x",
     "/t/x/openai/.."],
)  # fmt: skip
def test_a_path_cannot_leave_its_upstream(path: str, url: str) -> None:
    """A base URL with a path of its own stays the beginning of every request."""
    with RawUpstream({}) as upstream, proxying(url, {"openai": f"{upstream.url}/inside"}) as proxy:
        connection = httpx.Client(base_url=proxy.url)
        request = httpx.Request("GET", proxy.url + "/", extensions={"target": path.encode()})
        assert connection.send(request).status_code == 400
        connection.close()
        assert upstream.requests == []


@pytest.mark.parametrize(
    "path", ["/openai", "/openai@evil.example/v1", "/http://evil.example/", "/t", "/t/x", "/t/x/y/z"]
)
def test_only_upstreams_of_the_configuration_are_reached(path: str, url: str) -> None:
    """Anything else is no path of this server."""
    with RawUpstream({}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        assert CLIENT.get(proxy.url + path).status_code == 404
        assert upstream.requests == []


def test_a_body_that_is_too_large_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a length before it is read, in chunks as soon as it is too large; the upstream gets nothing of a call."""
    monkeypatch.setattr("recorder.server.proxy.request_body.MAX_MODEL_CALL", 100_000)
    with RawUpstream({CHAT: response(b"{}")}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        for content in (b"x" * 100_001, iter([b"x" * 60_000, b"x" * 60_000])):
            found = CLIENT.post(f"{proxy.url}/openai{CHAT}", content=content)
            assert (found.status_code, found.headers["content-type"]) == (413, "application/problem+json")
        assert upstream.requests == []
        assert proxy.proxy._held.used == 0


def test_too_many_bodies_at_once_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 says to try again, and the next one is served."""
    with RawUpstream({CHAT: response(b"{}")}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        proxy.proxy._held._limit = 1_000
        assert CLIENT.post(f"{proxy.url}/openai{CHAT}", content=b"x" * 2_000).status_code == 503
        assert CLIENT.post(f"{proxy.url}/openai{CHAT}", content=b"x" * 900).status_code == 200
        assert proxy.proxy._held.used == 0


def test_a_client_that_sends_half_a_body_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, for a model call and for an upload."""
    monkeypatch.setattr("recorder.server.proxy.request_body._SILENT_FOR", 0.1)
    with RawUpstream({CHAT: response(b"{}")}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        for path in (CHAT, "/v1/files"):
            with socket.create_connection((host, int(port)), 10) as connection:
                head = f"POST /openai{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 10\r\n\r\nhalf"
                connection.sendall(head.encode())
                assert connection.recv(1_000).startswith(b"HTTP/1.1 408 ")


def test_headers_that_are_no_text_are_refused(url: str) -> None:
    """400 says so."""
    with RawUpstream({"/": response(b"")}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        found = CLIENT.get(f"{proxy.url}/openai/", headers=[(b"x-name", b"\xff\xfe")])
        assert (found.status_code, found.headers["content-type"]) == (400, "application/problem+json")


def test_a_client_that_does_not_read_holds_up_its_upstream(url: str) -> None:
    """Of an answer without an end only as much is read as the buffers of two connections hold."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield OPENING
        data = piece(frame("x" * 60_000))
        while True:
            yield data
            sent += len(data)

    with RawUpstream({CHAT: endless}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        with CLIENT.stream("POST", f"{proxy.url}/openai{CHAT}", json=ASK | {"stream": True}) as found:
            next(found.iter_raw())
            before = -1
            while sent > before:  # until it stands still
                before = sent
                threading.Event().wait(0.3)
        assert sent < 32 * 2**20
        proxy.stored()


def test_a_client_that_leaves_while_it_uploads_ends_the_upload(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The upstream's connection is closed, and nothing is held or logged as an error."""

    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    with RawUpstream({"/v1/files": never}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        for path in ("/v1/files", CHAT):
            with socket.create_connection((host, int(port)), 10) as connection:
                head = f"POST /openai{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n"
                connection.sendall(head.encode() + b"x" * 200_000)
        while proxy.proxy.open_calls or proxy.proxy._held.used:
            threading.Event().wait(0.01)
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == []


def test_keys_that_a_provider_repeats_are_masked(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the URL of Gemini, in headers, and in the text of an error, which the client gets as it is."""
    key = "canary-key-0123456789-abcdef"
    answer = response(
        json.dumps({"error": {"message": f"Invalid API key: {key}"}}).encode(), status="401 Unauthorized"
    )
    gemini = "/v1beta/models/gemini-3:generateContent"
    question = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    with (
        RawUpstream({CHAT: answer, gemini: answer}) as upstream,
        proxying(url, {"here": upstream.url, "gone": "http://127.0.0.1:1"}) as proxy,
    ):
        headers = {"authorization": f"Bearer {key}", "x-api-key": key}
        for name in ("here", "gone"):
            CLIENT.post(f"{proxy.url}/{name}{CHAT}", json=ASK, headers=headers)
            CLIENT.post(f"{proxy.url}/{name}{gemini}?key={key}", json=question)
        assert key in CLIENT.post(f"{proxy.url}/here{CHAT}", json=ASK, headers=headers).text
        proxy.stored()
    assert len(sql(url, "SELECT id FROM runs")) == 5
    file = Path(url.removeprefix("sqlite:///"))
    assert not any(key.encode() in each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    with Replay(url) as replay:
        for (run_id,) in sql(url, "SELECT id FROM runs"):
            assert key.encode() not in b"".join(replay.frames(run_id, speed=None))
    assert key not in caplog.text


@pytest.mark.parametrize("name", ["x" * 10_000, "\u00e9\u4e2d", "a/b?c"])
def test_any_name_of_a_conversation_is_served(name: str, url: str) -> None:
    """Also one that cannot be stored."""
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}) as proxy:
        headers = [(b"x-recorder-conversation", name.encode())]
        assert CLIENT.post(f"{proxy.url}/openai{CHAT}", json=ASK, headers=headers).status_code == 200
        proxy.stored()
    assert [row[0] for row in sql(url, "SELECT status FROM runs")] == ["complete"]


def test_no_request_line_is_an_error_of_the_server(url: str) -> None:
    """Hundreds of odd paths: no 500, no hang, and the server goes on."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    odd = [
        "/",
        "//",
        "%2f",
        "%00",
        "%",
        "[",
        "]",
        "@",
        ":",
        "\\",
        ";",
        "?",
        "#",
        "..",
        "~",
        "|",
        "{",
        '"',
        "%C3%A9",
        "a",
    ]
    with RawUpstream({}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        statuses = set()
        for _ in range(400):
            path = "".join(chance.choices(odd, k=chance.randrange(1, 9)))
            with socket.create_connection((host, int(port)), 10) as connection:
                request = f"GET /openai/{path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n"
                connection.sendall(request.encode())
                statuses.add(connection.recv(100)[9:12])
        assert statuses <= {b"400", b"404", b"502"}, statuses
        assert CLIENT.get(f"{proxy.url}/healthz").status_code == 200
