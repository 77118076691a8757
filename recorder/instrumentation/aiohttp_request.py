"""Requests and responses of aiohttp, with those attributes of httpx's that recorder reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from yarl import URL

from recorder.instrumentation.provider_errors import AIOHTTP

#: What aiohttp decodes, unless it is told not to. Other encodings reach the application as they are.
_DECODED = frozenset(("gzip", "deflate", "br", "zstd"))


class AiohttpUrl:
    """A URL of aiohttp (a `yarl.URL`)."""

    __slots__ = ("_url",)

    def __init__(self, url: URL) -> None:
        self._url = url

    def __str__(self) -> str:
        return str(self._url)

    @property
    def path(self) -> str:
        """The decoded path."""
        return self._url.path

    @property
    def host(self) -> str:
        """The host; empty for a URL without one."""
        return self._url.host or ""

    @property
    def port(self) -> int | None:
        """The port, if the URL names one that is not its scheme's."""
        return None if self._url.is_default_port() else self._url.explicit_port

    @property
    def params(self) -> Mapping[str, str]:
        """The query."""
        return self._url.query


class AiohttpRequest:
    """A request that aiohttp sends, or is asked to send."""

    __slots__ = ("_body", "extensions", "headers", "method", "url")

    #: Whose exceptions the application gets.
    errors_of = AIOHTTP

    def __init__(
        self, method: str, url: URL, headers: Any = None, body: Any = None,
        extensions: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.method = method
        self.url = AiohttpUrl(url)
        #: The headers as they are sent. What is removed here is not sent.
        self.headers: Any = {} if headers is None else headers
        self.extensions: dict[str, Any] = {} if extensions is None else extensions
        self._body = body

    @property
    def content(self) -> bytes:
        """The body, before aiohttp compresses it. Raises `TypeError` for a body that can be read only once."""
        body = getattr(self._body, "_value", self._body)  # aiohttp has made a `Payload` of it
        if isinstance(body, io.BytesIO):
            return body.getvalue()[body.tell() :]
        if isinstance(body, str):  # that of a multipart field or a file
            return body.encode()
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"The body is of type {type(body).__name__}")
        return bytes(body)


class ResponseHead(NamedTuple):
    """The head of a response."""

    status_code: int
    headers: Mapping[str, str]
    request: Any


class AskedRequest:
    """What a session is asked to send, before its headers and body are known: enough to tell what is no model call."""

    __slots__ = ("method", "url")

    def __init__(self, session: Any, method: str, url: Any, options: Mapping[str, Any]) -> None:
        """Raises for what is no URL."""
        found = URL(url)
        if not found.absolute and (base := getattr(session, "_base_url", None)) is not None:
            found = base.join(found)
        self.method = method if method == "POST" else method.upper()
        if params := options.get("params"):
            found = found.extend_query(params)
        self.url = AiohttpUrl(found)


def head_of(response: Any, request: Any, *, is_decoded: bool) -> ResponseHead:
    """The head of a response of aiohttp. `is_decoded` tells whether aiohttp decodes what it can decode."""
    encoding = response.headers.get("content-encoding", "")
    headers = {"content-type": response.headers.get("content-type", "")}
    if not (is_decoded and encoding.lower() in _DECODED):
        headers["content-encoding"] = encoding
    return ResponseHead(response.status, headers, request)
