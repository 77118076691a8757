"""The SDK's client over aiohttp, made as tolerant as its default client over httpx, with the same exceptions.

Some gateways and proxies send responses that aiohttp refuses, but h11, the parser of httpx, accepts:
- a `Content-Length` together with `Transfer-Encoding: chunked`, or two `Content-Length` headers;
- a header line of more than 8,190 bytes, or more than 128 header lines;
- a body that is longer than its `Content-Length`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

#: The longest head of a response (bytes): httpx's limit. And the most header lines that fit into it.
MAX_HEAD = 100 * 1024
_MAX_LINES = MAX_HEAD // 4

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"\s*HTTP/\d\.\d (\d{3})")
_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?\n")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding[ \t]*:[^\r\n]*\bchunked[ \t]*\r?$")


@cache
def tolerant(client: type) -> Any:
    """A tolerant subclass of the SDK's `DefaultAioHttpClient`."""

    class Tolerant(client):  # type: ignore[misc]
        def _init_transport(self, *args: Any, **options: Any) -> Any:
            return _tolerant_transport(super()._init_transport(*args, **options))

        def _init_proxy_transport(self, *args: Any, **options: Any) -> Any:
            return _tolerant_transport(super()._init_proxy_transport(*args, **options))

        async def send(self, request: Any, **options: Any) -> Any:
            try:
                return await super().send(request, **options)
            except Exception as error:
                if (translated := _connect_error(error, request)) is None:
                    raise
                raise translated from error

    return Tolerant


def _connect_error(error: Exception, request: Any) -> Exception | None:
    """The `ConnectError` that the default client raises, or None if the error needs no translation.

    For an unknown host, a refused or closed connection or a bad certificate the transport raises `ConnectTimeout`. A
    response that is not HTTP raises an exception of aiohttp.
    """
    import aiohttp
    import httpx2

    cause = error.__cause__ if isinstance(error, httpx2.ConnectTimeout) else error
    if isinstance(cause, aiohttp.ClientError) and not isinstance(cause, TimeoutError):
        return httpx2.ConnectError(str(error), request=request)
    return None


def _tolerant_transport(transport: Any) -> Any:
    """The same transport. It uses tolerant sessions, unless it was given a session."""
    if getattr(transport, "client", transport) is None:
        transport.client = partial(_session, transport)
    send = transport.handle_async_request

    async def send_without_password(request: Any) -> Any:
        # httpx has made a header of user and password. aiohttp refuses a URL with them beside that header.
        if request.url.userinfo:
            request.url = request.url.copy_with(username=None, password=None)
        return await send(request)

    transport.handle_async_request = send_without_password
    return transport


def _session(transport: Any) -> Any:
    """A session as the transport makes it, but with larger limits."""
    import aiohttp

    limits = transport.limits
    options: dict[str, Any] = {} if limits.max_connections is None else {"limit": limits.max_connections}
    connector = _connector_class(aiohttp.TCPConnector)(
        keepalive_timeout=limits.keepalive_expiry, ssl=transport.ssl_context, **options
    )
    larger: dict[str, Any] = {
        "max_line_size": MAX_HEAD,
        "max_field_size": MAX_HEAD,
        "max_headers": _MAX_LINES,
    }
    known = signature(aiohttp.ClientSession).parameters
    return aiohttp.ClientSession(connector=connector, **{key: larger[key] for key in larger if key in known})


@cache
def _connector_class(connector: type) -> Any:
    """A connector with tolerant connections, if this version of aiohttp has the attribute `_factory`."""
    from aiohttp.client_proto import ResponseHandler

    class TolerantConnector(connector):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if isinstance(made := getattr(self, "_factory", None), partial) and made.func is ResponseHandler:
                self._factory = partial(_handler_class(ResponseHandler), *made.args, **made.keywords)

    return TolerantConnector


@cache
def _handler_class(handler: type) -> Any:
    receive: Callable[[Any, bytes], None] = handler.data_received  # type: ignore[attr-defined]

    class TolerantHandler(handler):  # type: ignore[misc]
        """One connection. Corrects heads before aiohttp parses them, and drops bytes after the end of a body."""

        #: The response that is being received. None if its other bytes pass through unchanged.
        _response: Response | None = None

        def set_response_params(self, **options: Any) -> None:
            self._response = Response()
            super().set_response_params(**options)

        def data_received(self, data: bytes) -> None:
            if (response := self._response) is not None and data:
                data = response.feed(data)
                if response.passes_through:
                    self._response = None
                if response.fault is not None:
                    self._end(response.fault)
                if not data:
                    return
            receive(self, data)

        def _end(self, fault: str) -> None:
            """Close the connection. If the head was too long, the request fails."""
            import aiohttp

            self.force_close()
            if self.transport is not None:
                self.transport.close()
            if fault == HEAD_TOO_LONG:
                self.set_exception(aiohttp.ClientConnectionError(fault))

    return TolerantHandler


HEAD_TOO_LONG = f"The head of the response has more than {MAX_HEAD} bytes"
_BODY_TOO_LONG = "The body of the response is longer than its head says"


class Response:
    """One response while it is received. Corrects its head and counts the bytes of its body."""

    def __init__(self) -> None:
        #: The bytes of an incomplete head. None after the last head; informational ones (1xx) may precede it.
        self._head: bytes | None = b""
        #: Bytes of the body that are missing. None if no `Content-Length` says where the body ends.
        self._remaining: int | None = None
        #: Why the connection has to be closed, or None.
        self.fault: str | None = None

    @property
    def passes_through(self) -> bool:
        """Whether the other bytes of the response need no correction and no counting."""
        return self._head is None and self._remaining is None

    def feed(self, data: bytes) -> bytes:
        """The bytes that aiohttp may parse now. None of them before the head is complete."""
        if self._head is None:
            return self._body_of(data)
        head, corrected, start = self._head + data, b"", max(0, len(self._head) - 3)
        while (end := _END.search(head, start)) is not None:
            part, head, start = fix_length(head[: end.end()]), head[end.end() :], 0
            corrected += part
            status = _STATUS.match(part)
            if status is None or status[1] == b"101" or not status[1].startswith(b"1"):
                self._head, self._remaining = None, _body_length(part)
                return corrected + self._body_of(head)
        self._head = head
        if len(head) <= MAX_HEAD:
            return corrected
        self.fault = HEAD_TOO_LONG
        return b""

    def _body_of(self, data: bytes) -> bytes:
        """The bytes that belong to the body. Bytes after its end are dropped."""
        if (remaining := self._remaining) is None:
            return data
        if len(data) > remaining:
            self.fault = _BODY_TOO_LONG
        self._remaining = max(0, remaining - len(data))
        return data[:remaining]


def fix_length(head: bytes) -> bytes:
    """The head with one `Content-Length` for several equal ones, and none beside chunks (RFC 9112, section 6.3)."""
    lengths = _LENGTH.findall(head)
    if not lengths:
        return head
    if _CHUNKED.search(head):
        return _LENGTH.sub(b"", head)
    values = {value.strip() for length in lengths for value in length.split(b",")}
    if len(values) > 1 or (len(lengths) == 1 and b"," not in lengths[0]):
        return head
    first = _LENGTH.search(head)
    assert first is not None
    line = b"Content-Length: " + values.pop() + b"\r\n"
    return bytes(head[: first.start()] + line + _LENGTH.sub(b"", head[first.end() :]))


def _body_length(head: bytes) -> int | None:
    """The length of the body by its `Content-Length` (bytes). None if something else says where the body ends."""
    lengths = _LENGTH.findall(head)
    status = _STATUS.match(head)
    without_body = status is not None and status[1] in (b"204", b"304")
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() and not without_body else None
