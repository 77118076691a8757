"""Requests and responses pass through the proxy byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.oracle import new_url
from tests.server.proxy.proxying import Proxied, RawUpstream, chunked, proxying, response

_EVENTS = b"content-type: text/event-stream".decode()
_ODD = bytes(range(256)) * 3
_CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\xa9\xf0\x9f\x8e\x88"}}]}\n\ndata: [DONE]\n\n'

#: Each name is a path, and its response.
RESPONSES: dict[str, Any] = {
    "/plain": response(b"hello", "content-type: text/plain", "x-mixed-Case: kept"),
    "/not-utf-8": response(_ODD, "content-type: application/octet-stream"),
    "/one-byte-chunks": chunked(_ODD, size=1),
    "/events": chunked(_CHAT, _EVENTS, size=5),
    "/gzip": response(gzip.compress(_CHAT), _EVENTS, "content-encoding: gzip"),
    "/not-really-gzip": chunked(b"\x00\x01 no gzip", "content-encoding: gzip"),
    "/empty": response(b""),
    "/empty-chunked": chunked(b""),
    "/no-content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "/not-modified": [b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\n\r\n'],
    "/too-many": response(b'{"error":{}}', "retry-after: 7", "x-should-retry: true", status="429 Too Many Requests"),
    "/overloaded": response(b"{}", status="529 Overloaded"),
    "/moved": response(b"there", "location: http://127.0.0.1:1/elsewhere", status="302 Found"),
    "/cookies": response(b"", "set-cookie: a=1", "set-cookie: b=2; Path=/"),
    "/until-the-end": [b"HTTP/1.0 200 OK\r\nx: y\r\n\r\n", b"to the ", b"end", None],
    "/trailers": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-check: 1\r\n\r\n"],
    "/large": response(random.Random(7).randbytes(3_000_000), size=50_000),
    "/hops": response(b"x", "connection: keep-alive, x-secret-hop", "x-secret-hop: 1", "keep-alive: timeout=5",
                      "alt-svc: h3=\":443\"", "x-recorder-run: forged"),
}  # fmt: skip
#: Paths that are model calls, so that the same bytes are recorded, too.
RECORDED = {f"{name}/v1/chat/completions": answer for name, answer in RESPONSES.items()}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    """Yield an upstream with these responses."""
    with RawUpstream({**RESPONSES, **RECORDED}) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Yield a proxy before it."""
    url = new_url(tmp_path_factory.mktemp("proxy"))
    with proxying(url, {"here": upstream.url}) as found:
        yield found


def sent(address: str, method: str, target: str, **options: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Send a request with a client that changes nothing, and return what comes."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, target, **options)
        found = connection.getresponse()
        return found.status, found.getheaders(), found.read()
    finally:
        connection.close()


_HOPS = ("connection", "keep-alive", "transfer-encoding", "date", "x-secret-hop", "alt-svc")


def passed(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers that belong to the response and not to a connection, without what recorder adds."""
    lower = [(name.lower(), value) for name, value in headers]
    return [each for each in lower if each[0] not in _HOPS and not each[0].startswith("x-recorder-")]


@pytest.mark.parametrize("recorded", [False, True], ids=["passed on", "recorded"])
@pytest.mark.parametrize("path", RESPONSES)
def test_a_response_is_the_upstreams_own(
    path: str, recorded: bool, upstream: RawUpstream, proxy: Proxied
) -> None:
    """Status, headers and body are equal to those without a proxy."""
    target, body = path, b"any"
    if recorded:
        target += "/v1/chat/completions"
        body = json.dumps(
            {"model": "m", "stream": True, "messages": [{"role": "user", "content": path}]}
        ).encode()
    there = sent(upstream.url, "POST", target, body=body)
    here = sent(proxy.url, "POST", f"/here{target}", body=body)
    assert here[0] == there[0]
    assert hashlib.sha256(here[2]).hexdigest() == hashlib.sha256(there[2]).hexdigest()
    assert passed(here[1]) == passed(there[1])
    assert any(name == "x-recorder-run" for name, _ in here[1]) == recorded


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
def test_every_method_passes(method: str, upstream: RawUpstream, proxy: Proxied) -> None:
    """The upstream gets it, and the client gets the headers, also without a body."""
    status, headers, body = sent(proxy.url, method, "/here/plain")
    assert (status, body) == (200, b"" if method == "HEAD" else b"hello")
    assert dict(headers)["content-length"] == "5"
    assert upstream.requests[-1].method == method


BODIES: dict[str, tuple[Any, dict[str, str]]] = {
    "nothing": (None, {}),
    "an empty body": (b"", {}),
    "no text": (_ODD, {"content-type": "application/octet-stream"}),
    "compressed": (gzip.compress(b"{}"), {"content-encoding": "gzip"}),
    "a form with files": (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + _ODD + b"\r\n--b--\r\n",
        {"content-type": "multipart/form-data; boundary=b"},
    ),
    "larger than a buffer": (random.Random(5).randbytes(2_000_000), {}),
}  # fmt: skip


@pytest.mark.parametrize("chunks", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("path", ["/plain", "/plain/v1/chat/completions"], ids=["passed on", "recorded"])
@pytest.mark.parametrize("name", BODIES)
def test_a_request_is_the_clients_own(
    name: str, path: str, chunks: bool, upstream: RawUpstream, proxy: Proxied
) -> None:
    """The upstream gets the same bytes and headers, also of what is no model call after all."""
    body, headers = BODIES[name]
    given: Any = iter([body[:5], body[5:]] if body else []) if chunks else body
    assert sent(proxy.url, "POST", f"/here{path}", body=given, headers=headers)[0] == 200
    received = upstream.requests[-1]
    assert hashlib.sha256(received.body).hexdigest() == hashlib.sha256(body or b"").hexdigest()
    assert {key: received.values(key) for key in headers} == {key: [value] for key, value in headers.items()}


@pytest.mark.parametrize(
    "query", ["", "?", "?a=1&a=2", "?x=%2F%2f+%20&y", "?q=%zz&%FF", "?a=b=c&&d", "?u=http://127.0.0.1:1/"]
)
def test_a_url_is_not_rewritten(query: str, upstream: RawUpstream, proxy: Proxied) -> None:
    """Escapes, order and repetition of the query are as the client has sent them."""
    assert sent(proxy.url, "GET", f"/here/plain{query}")[0] == 200
    assert upstream.requests[-1].target == f"/plain{query if query != '?' else ''}"


def test_headers_of_one_connection_and_of_recorder_stay_here(upstream: RawUpstream, proxy: Proxied) -> None:
    """All others pass, with their values, and the host is the upstream's."""
    headers = {
        "connection": "x-hop, keep-alive", "x-hop": "1", "te": "trailers", "proxy-authorization": "p",
        "x-recorder-user": "anna", "x-recorder-conversation": "c", "x-recorder-anything": "y",
        "authorization": "Bearer key", "user-agent": "a client", "accept": "*/*", "accept-encoding": "gzip, br",
        "x-name": "h\u00e9llo".encode().decode("latin-1"),
    }  # fmt: skip
    assert sent(proxy.url, "GET", "/here/plain", headers=headers)[0] == 200
    found = upstream.requests[-1]
    assert sorted((name.lower(), value) for name, value in found.headers) == sorted([
        ("accept", "*/*"), ("accept-encoding", "identity"), ("authorization", "Bearer key"),
        ("host", upstream.url.removeprefix("http://")), ("user-agent", "a client"), ("x-name", "h\u00e9llo"),
    ])  # fmt: skip


def test_no_header_is_added(upstream: RawUpstream, proxy: Proxied) -> None:
    """A request without any gets none of the proxy's HTTP client."""
    host, port = proxy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(f"GET /here/plain HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    assert {name.lower() for name, _ in upstream.requests[-1].headers} == {"host", "accept-encoding"}


def test_cookies_of_one_client_never_reach_another(upstream: RawUpstream, proxy: Proxied) -> None:
    """The proxy keeps no cookies."""
    sent(proxy.url, "GET", "/here/cookies")
    sent(proxy.url, "GET", "/here/plain")
    assert upstream.requests[-1].values("cookie") == []


def test_a_redirect_is_not_followed(proxy: Proxied) -> None:
    """The client gets it; no other host than those of the configuration is asked."""
    status, headers, _ = sent(proxy.url, "GET", "/here/moved")
    assert (status, dict(headers)["location"]) == (302, "http://127.0.0.1:1/elsewhere")


def test_a_connection_to_an_upstream_is_used_again(upstream: RawUpstream, proxy: Proxied) -> None:
    """After each response that is complete, with a body or without one."""
    sent(proxy.url, "GET", "/here/plain")
    before = upstream.connections
    for path in (
        "/plain",
        "/events",
        "/no-content",
        "/empty",
        "/large",
        "/too-many",
        "/plain/v1/chat/completions",
    ):
        sent(proxy.url, "POST", f"/here{path}", body=b"{}")
        sent(proxy.url, "HEAD", f"/here{path}")
    assert upstream.connections == before
