"""The headers that pass through the proxy, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from multidict import CIMultiDict

from recorder.server.problem import ProblemError

RawHeaders = Iterable[tuple[bytes, bytes]]

#: Headers that are about one connection (RFC 9110, 7.6.1), beside those that `Connection` names.
_HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
#: What the proxy's HTTP client sets itself. A compressed stream could neither be read nor passed on event by event.
_SET_BY_CLIENT = frozenset((b"host", b"expect", b"accept-encoding", b"content-length"))
#: What the server sets itself, and what is true of the provider's host only.
_SET_BY_SERVER = frozenset((b"date", b"alt-svc"))
#: Headers for this server, and of this server.
OWN_PREFIX = b"x-recorder-"
#: What uvicorn refuses in a header.
_BAD_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class ClientHeaders(NamedTuple):
    """The headers of a request in two parts."""

    #: What is sent to the upstream.
    sent: CIMultiDict[str]
    #: The headers for this server, in lower case.
    own: dict[str, str]


def split_client_headers(headers: RawHeaders) -> ClientHeaders:
    """What is sent to the upstream, and what is for this server. Raises `ProblemError` for bytes that are not UTF-8."""
    given = list(headers)
    left_out = _HOP_BY_HOP | _SET_BY_CLIENT | _named_in_connection(given)
    found = ClientHeaders(CIMultiDict(), {})
    for name, value in given:
        lower = name.lower()
        if lower.startswith(OWN_PREFIX):
            found.own[_text(lower)] = _text(value)
        elif lower not in left_out:
            found.sent.add(_text(name), _text(value))
    found.sent["accept-encoding"] = "identity"
    return found


def response_headers(headers: RawHeaders, status: int) -> list[tuple[bytes, bytes]]:
    """The headers of the upstream's response that the client gets."""
    given = list(headers)
    left_out = _HOP_BY_HOP | _SET_BY_SERVER | _named_in_connection(given)
    if status in (204, 304) or any(name.lower() == b"transfer-encoding" for name, _ in given):
        left_out |= {b"content-length"}
    return [
        (lower, value)
        for name, value in given
        if (lower := name.lower()) not in left_out
        and _is_valid(lower, value)
        and not lower.startswith(OWN_PREFIX)
    ]


def _named_in_connection(headers: RawHeaders) -> frozenset[bytes]:
    values = [value for name, value in headers if name.lower() == b"connection"]
    return frozenset(each.strip().lower() for value in values for each in value.split(b","))


def _is_valid(name: bytes, value: bytes) -> bool:
    return _BAD_NAME.search(name) is None and _BAD_VALUE.search(value) is None


def _text(raw: bytes) -> str:
    try:
        return raw.decode()  # as the HTTP client writes it
    except UnicodeDecodeError:
        raise ProblemError(400, "A header has bytes that are not UTF-8") from None
