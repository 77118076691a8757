"""The providers behind the proxy. A request can name none of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from recorder.errors import ConfigError
from recorder.instrumentation.model_calls import ENDPOINTS, Endpoint

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
#: The first parts of the server's own paths, which no upstream can have as its name.
_OWN_PATHS = frozenset(
    (
        "t", "chat", "conversations", "events", "export", "healthz", "metrics", "models", "openapi.json", "page",
        "readyz", "runs", "search", "static", "streams",
    )
)  # fmt: skip
_BY_WIRE = {endpoint.wire: endpoint for endpoint in reversed(ENDPOINTS.values())}


@dataclass(frozen=True, slots=True)
class Upstream:
    """One provider. Raises `ConfigError` for an invalid name, address or wire format."""

    #: The first part of its paths on this server.
    name: str
    #: What replaces the name, without a "/" at the end: "https://api.groq.com/openai".
    base_url: str
    #: The wire format of POSTs whose path is none that recorder knows; without one they are not recorded.
    wire: str | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None or self.name in _OWN_PATHS:
            raise ConfigError(
                f"The upstream has the name {self.name!r:.80}; choose another one, of lower-case letters and digits"
            )
        _check_base_url(self.name, self.base_url)
        if self.wire is not None and self.wire not in _BY_WIRE:
            known = ", ".join(sorted(_BY_WIRE))
            raise ConfigError(
                f"The upstream {self.name} has the wire format {self.wire!r:.80}; choose one of {known}"
            )

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint of POSTs to unknown paths."""
        return _BY_WIRE[self.wire] if self.wire is not None else None


def upstreams_from(given: Mapping[str, Upstream | Mapping[str, str] | str]) -> dict[str, Upstream]:
    """Upstreams by name: each an address, or a table with `base_url` and `wire`. Raises `ConfigError`."""
    return {name: _upstream(name, fields) for name, fields in given.items()}


def upstreams_of_options(given: Iterable[str], configured: Mapping[str, Upstream]) -> dict[str, Upstream]:
    """The upstreams of the command line, `NAME=URL` each, beside those of the configuration and those there are by
    default; of one name the first of these counts. Raises `ConfigError`."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, url = each.partition("=")
        if not equals:
            raise ConfigError(f"--upstream is {each!r:.80}; give NAME=URL")
        found[name] = url
    return {**DEFAULT_UPSTREAMS, **configured, **upstreams_from(found)}


def _upstream(name: str, fields: Upstream | Mapping[str, str] | str) -> Upstream:
    if isinstance(fields, Upstream):
        return fields
    if isinstance(fields, str):
        fields = {"base_url": fields}
    unknown = ", ".join(sorted(fields.keys() - {"base_url", "wire"}))
    if unknown or not isinstance(fields.get("base_url"), str):
        problem = f"the unknown option {unknown}" if unknown else "no base_url"
        raise ConfigError(f"The upstream {name!r:.80} has {problem}; it has base_url and may have wire")
    return Upstream(name, fields["base_url"].rstrip("/"), fields.get("wire"))


def _check_base_url(name: str, url: str) -> None:
    if "@" in url:
        raise ConfigError(
            f"The base_url of the upstream {name} has a user; clients send their own credentials"
        )
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.query or parts.fragment or not url.isascii() or re.search(r"[\s\\]", url):
        raise ConfigError(
            f"The upstream {name} has the base_url {url!r:.200}; give one such as https://api.openai.com"
        )


#: What `recorder serve --proxy` serves without further options.
DEFAULT_UPSTREAMS = {
    "openai": Upstream("openai", "https://api.openai.com"),
    "anthropic": Upstream("anthropic", "https://api.anthropic.com"),
}
