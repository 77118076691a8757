"""The SDK's client over aiohttp, as lenient as its default one over httpx, and with errors of the same names.

aiohttp refuses a response whose head has a length beside chunks, the length twice, a line of more than 8,190 bytes or
more than 128 lines, and one that is longer than it says; h11, which reads for httpx, takes all of these. Gateways and
proxies send them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

#: The longest head that is taken, as httpx has it (bytes); and lines that fit into it.
MAX_HEAD = 100 * 1024
_MOST_LINES = MAX_HEAD // 4

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"\s*HTTP/\d\.\d (\d{3})")
_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?\n")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding[ \t]*:[^\r\n]*\bchunked[ \t]*\r?$")


@cache
def lenient(client: type) -> Any:
    """A class like the SDK's `DefaultAioHttpClient`."""

    class Lenient(client):  # type: ignore[misc]
        def _init_transport(self, *args: Any, **options: Any) -> Any:
            return _lenient_transport(super()._init_transport(*args, **options))

        def _init_proxy_transport(self, *args: Any, **options: Any) -> Any:
            return _lenient_transport(super()._init_proxy_transport(*args, **options))

        async def send(self, request: Any, **options: Any) -> Any:
            try:
                return await super().send(request, **options)
            except Exception as error:
                if (refusal := _refusal(error, request)) is None:
                    raise
                raise refusal from error

    return Lenient


def _refusal(error: Exception, request: Any) -> Exception | None:
    """What the default client raises, where the transport calls what keeps it from an answer a timeout: no such host,
    a connection that is refused or closed, a certificate. What is no HTTP it does not translate at all."""
    import aiohttp
    import httpx2

    cause = error.__cause__ if isinstance(error, httpx2.ConnectTimeout) else error
    if isinstance(cause, aiohttp.ClientError) and not isinstance(cause, TimeoutError):
        return httpx2.ConnectError(str(error), request=request)
    return None


def _lenient_transport(transport: Any) -> Any:
    """The same, with sessions and connections of ours where it makes its own."""
    if getattr(transport, "client", transport) is None:
        transport.client = partial(_session, transport)
    send = transport.handle_async_request

    async def send_without_password(request: Any) -> Any:
        # httpx has made a header of it, and aiohttp refuses both at once.
        if request.url.userinfo:
            request.url = request.url.copy_with(username=None, password=None)
        return await send(request)

    transport.handle_async_request = send_without_password
    return transport


def _session(transport: Any) -> Any:
    """As the transport makes it, with larger limits."""
    import aiohttp

    limits = transport.limits
    options: dict[str, Any] = {} if limits.max_connections is None else {"limit": limits.max_connections}
    connector = _connector_class(aiohttp.TCPConnector)(
        keepalive_timeout=limits.keepalive_expiry, ssl=transport.ssl_context, **options
    )
    larger: dict[str, Any] = {
        "max_line_size": MAX_HEAD,
        "max_field_size": MAX_HEAD,
        "max_headers": _MOST_LINES,
    }
    known = signature(aiohttp.ClientSession).parameters
    return aiohttp.ClientSession(connector=connector, **{key: larger[key] for key in larger if key in known})


@cache
def _connector_class(connector: type) -> Any:
    """A connector whose connections are lenient, as far as this version of aiohttp lets that be."""
    from aiohttp.client_proto import ResponseHandler

    class LenientConnector(connector):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if isinstance(made := getattr(self, "_factory", None), partial) and made.func is ResponseHandler:
                self._factory = partial(_handler_class(ResponseHandler), *made.args, **made.keywords)

    return LenientConnector


@cache
def _handler_class(handler: type) -> Any:
    receive: Callable[[Any, bytes], None] = handler.data_received  # type: ignore[attr-defined]

    class LenientHandler(handler):  # type: ignore[misc]
        """One connection: heads are put right before aiohttp reads them, and what follows a body is left out."""

        #: The response that comes; None where all that comes is aiohttp's to read.
        _response: Response | None = None

        def set_response_params(self, **options: Any) -> None:
            self._response = Response()
            super().set_response_params(**options)

        def data_received(self, data: bytes) -> None:
            if (response := self._response) is not None and data:
                data = response.take(data)
                if response.is_as_it_comes:
                    self._response = None
                if response.fault is not None:
                    self._end(response.fault)
                if not data:
                    return
            receive(self, data)

        def _end(self, fault: str) -> None:
            """The connection is not used again; where its head is wrong, the request fails."""
            import aiohttp

            self.force_close()
            if self.transport is not None:
                self.transport.close()
            if fault == TOO_LONG:
                self.set_exception(aiohttp.ClientConnectionError(fault))

    return LenientHandler


TOO_LONG = f"The head of the response has more than {MAX_HEAD} bytes"
_TOO_MUCH = "The body of the response is longer than its head says"


class Response:
    """One response as far as it has come."""

    def __init__(self) -> None:
        #: What has come of a head; None behind the last one, for there may be heads with news before it.
        self._head: bytes | None = b""
        #: Bytes that the body still has; None where something else says where it ends.
        self._left: int | None = None
        #: What is wrong with it.
        self.fault: str | None = None

    @property
    def is_as_it_comes(self) -> bool:
        """Whether there is nothing more to put right, and nothing to count."""
        return self._head is None and self._left is None

    def take(self, data: bytes) -> bytes:
        """What aiohttp may read now; nothing until the head is complete."""
        if self._head is None:
            return self._cut(data)
        head, done, start = self._head + data, b"", max(0, len(self._head) - 3)
        while (end := _END.search(head, start)) is not None:
            part, head, start = put_right(head[: end.end()]), head[end.end() :], 0
            done += part
            status = _STATUS.match(part)
            if status is None or status[1] == b"101" or not status[1].startswith(b"1"):
                self._head, self._left = None, _length_of(part)
                return done + self._cut(head)
        self._head = head
        if len(head) <= MAX_HEAD:
            return done
        self.fault = TOO_LONG
        return b""

    def _cut(self, data: bytes) -> bytes:
        """What belongs to the body; nobody knows what the rest is."""
        if (left := self._left) is None:
            return data
        if len(data) > left:
            self.fault = _TOO_MUCH
        self._left = max(0, left - len(data))
        return data[:left]


def put_right(head: bytes) -> bytes:
    """A head with one length at most: none beside chunks (RFC 9112, section 6.3), and one of several that agree."""
    lengths = _LENGTH.findall(head)
    if not lengths:
        return head
    if _CHUNKED.search(head):
        return _LENGTH.sub(b"", head)
    values = {value.strip() for length in lengths for value in length.split(b",")}
    if len(values) > 1 or (len(lengths) == 1 and b"," not in lengths[0]):
        return head
    place = _LENGTH.search(head)
    assert place is not None
    line = b"Content-Length: " + values.pop() + b"\r\n"
    return bytes(head[: place.start()] + line + _LENGTH.sub(b"", head[place.end() :]))


def _length_of(head: bytes) -> int | None:
    """Bytes of the body by its head; None where something else says where it ends."""
    lengths = _LENGTH.findall(head)
    status = _STATUS.match(head)
    without_body = status is not None and status[1] in (b"204", b"304")
    return int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() and not without_body else None
