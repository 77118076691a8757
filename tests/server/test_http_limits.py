"""Requests that are too large, too slow or no HTTP get an answer, and clients that do not read are dropped."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server import http_limits, request_bodies
from recorder.server.http_limits import LimitedHttp
from tests.oracle import begin, finish, new_url, say
from tests.server.serving import CLIENT, Served, read, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server whose clients must be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LimitedHttp, "headers_within", 0.5)
        patch.setattr(LimitedHttp, "stalled_after", 0.5)
        with serving(new_url(tmp_path_factory.mktemp("limits"))) as found:
            yield found


def answer(server: Served, request: bytes) -> bytes:
    """Send bytes, and return everything that the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.server.port), timeout=10) as connection:
        try:
            connection.sendall(request)
            found = b""
            while data := connection.recv(65536):
                found += data
        except ConnectionError:  # it has closed the connection while we sent
            pass
        return found


GET = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + b"a: " + b"x" * http_limits.MAX_HEADER_BYTES + b"\r\n\r\n", 431),
        (GET + b"a: b\r\n" * (http_limits.MAX_HEADERS + 1) + b"\r\n", 431),
        (b"GET /" + b"x" * http_limits.MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
        (GET + b"a: b\r\n", 408),
        (b"GET / HTTP/1.1", 408),
        (b"", 408),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"rubbish\r\n\r\n", 400),
        (GET + b"content-length: 100000\r\n\r\n", 413),
        (GET + b"content-length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"GET /openapi.json HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
    ],
    ids=[
        "bytes",
        "number",
        "line",
        "half",
        "begin",
        "nothing",
        "tls",
        "path",
        "rubbish",
        "body",
        "length",
        "no host",
    ],
)
def test_a_request_beyond_the_limits_gets_an_answer(
    server: Served, request_bytes: bytes, status: int
) -> None:
    """It is a problem, and the connection is closed."""
    found = answer(server, request_bytes)
    assert found.startswith(b"HTTP/1.1 %d " % status), found[:200]
    assert b"application/problem+json" in found
    assert found.count(b"HTTP/1.1 ") == 1


def test_several_requests_of_one_connection_are_answered(server: Served) -> None:
    """Each of them has the limits of one request."""
    padding = b"a: " + b"x" * 20_000 + b"\r\n"
    found = answer(server, (GET + padding + b"\r\n") + (GET + padding + b"connection: close\r\n\r\n"))
    assert found.count(b"HTTP/1.1 200 OK") == 2


def test_an_endless_body_does_not_keep_a_stream(server: Served) -> None:
    """A client that sends for ever has left."""
    with ChatHistoryCallback(server.database.url) as history:
        run_id = begin(history)
        history.flush().wait(10)
        head = f"GET /streams/{run_id} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.server.port), timeout=10) as connection:
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
            with pytest.raises(ConnectionError):
                connection.sendall(10_000 * (b"%x\r\n%s\r\n" % (6_000, b"x" * 6_000)))
        finish(history, run_id, "")


def test_a_reader_that_stalls_is_dropped_and_slows_nobody(server: Served) -> None:
    """Others read the whole run meanwhile; then the stalled connection is cut."""
    text = "x" * 10_000
    with ChatHistoryCallback(server.database.url, flush_interval=0.01) as history:
        run_id = begin(history)
        history.flush().wait(10)
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.settimeout(20)
            stalled.connect(("127.0.0.1", server.server.port))
            stalled.sendall(f"GET /streams/{run_id} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            stalled.recv(100)
            for _ in range(40):
                say(history, run_id, [text] * 20)
                history.flush().wait(10)
            finish(history, run_id, "")
            assert len(read(server.url, run_id).seqs) == 800
            while server.server.server_state.connections:  # it is dropped while it does not read
                CLIENT.get(f"{server.url}/openapi.json")
            assert rest_of(stalled) < 800 * len(text)


def rest_of(connection: socket.socket) -> int:
    """Return how many bytes still come from a connection that the server has cut."""
    total = 0
    try:
        while data := connection.recv(65536):
            total += len(data)
    except ConnectionResetError:
        pass
    return total


CHAT = b"POST /chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def test_a_body_that_does_not_come_is_not_waited_for(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 408, and the connection is closed."""
    monkeypatch.setattr(request_bodies, "BODY_WITHIN", 0.2)
    assert answer(server, CHAT + b"content-length: 10\r\n\r\n{").startswith(b"HTTP/1.1 408 ")


def test_a_body_without_a_length_is_limited(server: Served) -> None:
    """It is 413 as soon as it is too long."""
    chunk = b"%x\r\n%s\r\n" % (60_000, b"x" * 60_000)
    found = answer(server, CHAT + b"transfer-encoding: chunked\r\n\r\n" + 80 * chunk)
    assert found.startswith(b"HTTP/1.1 413 ")
    stop = CHAT.replace(b"/chat", b"/streams/x/stop") + b"transfer-encoding: chunked\r\n\r\n"
    assert answer(server, stop + 2 * chunk).startswith(b"HTTP/1.1 413 ")


def test_a_length_with_many_digits_is_no_number(server: Served) -> None:
    """Zeros before it do not hide it."""
    for length in (b"0" * 5_000 + b"1", b"9" * 5_000):
        found = answer(server, CHAT + b"content-length: " + length + b"\r\nconnection: close\r\n\r\n{")
        assert found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ", b"HTTP/1.1 422 "))


def test_bodies_share_a_limit(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that has no room is 503, and there is room again after it."""
    monkeypatch.setattr(request_bodies, "MAX_BODIES", 1_000)
    request = CHAT + b"connection: close\r\ncontent-length: 2000\r\n\r\n" + b" " * 2_000
    assert [answer(server, request)[9:12] for _ in range(2)] == [b"503", b"503"]
    monkeypatch.undo()
    assert answer(server, request)[9:12] == b"422"
