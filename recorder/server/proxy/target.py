"""Where a request to a provider's path goes: `/openai/v1/...`, or `/t/<token>/openai/v1/...`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from recorder.server.problem import ProblemError
from recorder.server.proxy.upstreams import Upstream

#: The first part of a path that has a token in it.
_TOKEN_PREFIX = "t"
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Target:
    """The upstream of a request, and what is left of its path."""

    upstream: Upstream
    #: The path behind the upstream's name and the query, both as the client has sent them.
    path: str
    query: str = ""
    #: The token in the path; None without one.
    token: str | None = None

    @property
    def url(self) -> str:
        """The URL at the upstream."""
        return self.upstream.base_url + self.path + (f"?{self.query}" if self.query else "")


def target_of(scope: Mapping[str, Any], upstreams: Mapping[str, Upstream]) -> Target | None:
    """The target of an ASGI scope; None for the server's own paths.

    Raises `ProblemError` with status 400 for a path that would leave the upstream's base URL.
    """
    path, token = _raw_path(scope), None
    name, rest = _first_part(path)
    if name == _TOKEN_PREFIX:
        segment, path = _first_part(rest)
        token = unquote(segment)
        name, rest = _first_part(path)
    upstream = upstreams.get(name)
    if upstream is None or not rest:
        return None
    _check_path(rest)
    return Target(upstream, rest, _text(scope.get("query_string", b"")), token)


def _first_part(path: str) -> tuple[str, str]:
    """The first part of a path, and what is behind it, with its "/"."""
    name, slash, rest = path.removeprefix("/").partition("/")
    return name, slash + rest


def _raw_path(scope: Mapping[str, Any]) -> str:
    """The path as it was sent, without that of the application into which this one is mounted."""
    raw = scope.get("raw_path")
    path = _text(raw.partition(b"?")[0]) if raw else quote(scope["path"])
    root = quote(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _text(raw: bytes) -> str:
    text = raw.decode("latin-1")
    if not text.isascii():
        raise ProblemError(400, "The URL has bytes that are not ASCII; write them as %XX")
    return text


def _check_path(path: str) -> None:
    if any(part in (".", "..") for part in _SEPARATORS.split(unquote(path))):
        raise ProblemError(400, "The path has the part . or .. in it; send the path that is meant")
