"""Requests and responses of aiohttp have what recorder reads of those of httpx."""

from __future__ import annotations

import io
from typing import Any

import aiohttp
import pytest
from yarl import URL

from recorder.instrumentation.aiohttp_request import AiohttpRequest, AiohttpUrl, AskedRequest, head_of
from recorder.instrumentation.model_calls import endpoint_of, model_call_of


class Session:
    """A session with a base URL."""

    def __init__(self, base: str | None = None) -> None:
        self._base_url = URL(base) if base else None


class Response:
    """The head of a response."""

    status = 200

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def test_a_url_has_the_parts_of_httpx() -> None:
    """The port of the scheme is none, as in httpx."""
    url = AiohttpUrl(URL("https://API.example.org:443/v1/a%20b?x=1"))
    assert (url.host, url.port, url.path, dict(url.params)) == (
        "api.example.org",
        None,
        "/v1/a b",
        {"x": "1"},
    )
    assert AiohttpUrl(URL("http://h:8000/")).port == 8000
    assert AiohttpUrl(URL("/v1")).host == ""


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (None, "http://h/v1/chat/completions?version=1"),
        (None, URL("http://h/v1/chat/completions")),
        ("http://h/v1/", "chat/completions"),
        ("http://h/v1/", "/v1/chat/completions"),
    ],
)
def test_a_model_call_is_recognised_by_its_url(base: str | None, url: Any) -> None:
    """The session's base URL belongs to it."""
    assert endpoint_of(AskedRequest(Session(base), "post", url, {})) is not None
    assert endpoint_of(AskedRequest(Session(base), "PUT", url, {})) is None


def test_a_response_that_is_read_again_is_recognised_by_its_query() -> None:
    """The query may be part of the URL or an argument."""
    url = "http://h/v1/responses/resp_1"
    for query, params in (("?stream=true", None), ("", {"stream": "true"}), ("", [("stream", "true")])):
        request = AskedRequest(Session(), "GET", url + query, {"params": params})
        endpoint = endpoint_of(request)
        assert endpoint is not None
        call = model_call_of(request, endpoint)
        assert call is not None
        assert call.body["response_id"] == "resp_1"
    assert endpoint_of(AskedRequest(Session(), "GET", url, {})) is None


@pytest.mark.parametrize("body", [b"{}", bytearray(b"{}"), memoryview(b"{}"), "{}", io.BytesIO(b"{}")])
def test_a_body_in_memory_is_its_bytes(body: Any) -> None:
    """As it is, or in the payload that aiohttp makes of it."""
    for found in (body, aiohttp.payload.get_payload(body)):
        assert AiohttpRequest("POST", URL("http://h/"), body=found).content == b"{}"


def test_a_file_in_memory_is_sent_from_where_it_stands() -> None:
    """Reading it here does not move it."""
    file = io.BytesIO(b"read{}")
    file.seek(4)
    assert AiohttpRequest("POST", URL("http://h/"), body=file).content == b"{}"
    assert file.read() == b"{}"


def test_a_body_that_can_be_read_only_once_is_not_read() -> None:
    """It belongs to the request."""
    with pytest.raises(TypeError, match="The body is of type tuple_iterator"):
        _ = AiohttpRequest("POST", URL("http://h/"), body=iter(())).content


@pytest.mark.parametrize(
    ("encoding", "is_decoded", "left"),
    [("gzip", True, None), ("GZIP", True, None), ("gzip", False, "gzip"), ("gzip, br", True, "gzip, br"),
     ("rot13", True, "rot13")],
)  # fmt: skip
def test_an_encoding_is_left_to_decode_if_aiohttp_does_not(
    encoding: str, is_decoded: bool, left: str | None
) -> None:
    """aiohttp decodes one encoding that it knows."""
    head = head_of(Response(content_encoding=encoding), None, is_decoded=is_decoded)
    assert head.headers.get("content-encoding") == left
