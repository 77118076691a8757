"""Who may read what: tokens, the users they are for, and the Host and Origin of a request.

A page of another site can send requests to a server on the reader's own machine. So a request must name an allowed
host, which a page that was reached by DNS rebinding cannot, and a browser's request must come from an allowed origin.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import HTTPConnection

from recorder.errors import ConfigError
from recorder.server.authorization import Authorization
from recorder.server.caller import Caller
from recorder.server.problem import ProblemError

Headers = Iterable[tuple[bytes, bytes]]

#: Names of this machine.
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: The subprotocol of recorder's WebSockets; `bearer.<token>` beside it is the token, since a page can set no header.
SUBPROTOCOL = "recorder"
_BEARER = "bearer."
_ASKS_FOR_BEARER = {"www-authenticate": "Bearer"}
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
#: Characters that a token may have; so it can stand in a header, and in a subprotocol.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~=/-]{16,512}")


class Access:
    """The rules of one server. Raises `ConfigError` for a value of another type, and for a token that is too short."""

    def __init__(
        self,
        tokens: Mapping[str, str | None] | None = None,
        allowed_hosts: Sequence[str] | None = None,
        allowed_origins: Sequence[str] = (),
        authorization: Authorization | None = None,
    ) -> None:
        _check_types(tokens, allowed_hosts, allowed_origins)
        if tokens and authorization is not None:
            raise ConfigError("tokens and authorize both say who sends a request; pass one of them")
        self._authorization = authorization
        #: Token -> the user it is for; None for all users. Without tokens everybody may read everything.
        self._callers = {_digest(_checked(token)): Caller(user) for token, user in (tokens or {}).items()}
        #: With tokens any host is good, unless hosts are given: a page that was rebound has no token, and no cookie.
        knows_callers = bool(tokens) or authorization is not None
        hosts = allowed_hosts or (() if knows_callers else LOOPBACK)
        self._hosts = {host.lower().strip("[]") for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}

    @property
    def needs_token(self) -> bool:
        """Whether a request needs a token."""
        return bool(self._callers)

    async def caller(self, connection: HTTPConnection) -> Caller:
        """The caller of a request or WebSocket. Raises `ProblemError` with status 400, 401, 403, or as the function of
        an application says."""
        caller = self.check(connection.scope["headers"], connection.scope.get("scheme", "http"))
        return caller if self._authorization is None else await self._authorization.caller(connection)

    def check(self, headers: Headers, scheme: str) -> Caller:
        """The caller by its headers. Raises `ProblemError` with status 400, 401 or 403."""
        found = self.check_place(headers, scheme)
        return self._caller(_token_of(found), "send it as Authorization: Bearer", _ASKS_FOR_BEARER)

    async def provider_caller(self, connection: HTTPConnection, tokens: Sequence[str]) -> Caller:
        """`check` for a request whose Authorization may be for a provider. `tokens` are those for this server."""
        scope = connection.scope
        self.check_place(scope["headers"], scope.get("scheme", "http"))
        token = tokens[0] if len(set(tokens)) == 1 else ""
        caller = self._caller(token, "send it as x-recorder-token, or in the path: /t/<token>/<upstream>/...")
        return caller if self._authorization is None else await self._authorization.caller(connection)

    def check_place(self, headers: Headers, scheme: str) -> Mapping[str, Sequence[str]]:
        """Check the Host and the Origin alone; the headers by name. Raises `ProblemError` with status 400 or 403."""
        found = _by_name(headers)
        host = self._checked_host(found.get("host", []))
        for origin in found.get("origin", []):
            self._check_origin(origin.lower(), host, scheme)
        return found

    def _checked_host(self, given: Sequence[str]) -> str:
        if len(given) != 1 or (found := _HOST.fullmatch(given[0])) is None:
            raise ProblemError(400, f"The request has {len(given)} valid Host headers and needs one")
        if self._hosts and found["name"].lower().strip("[]") not in self._hosts:
            raise ProblemError(
                403,
                f"The host {given[0]!r:.200} is not served here; add it with allowed_hosts, or --allow-host",
            )
        return given[0].lower()

    def _check_origin(self, origin: str, host: str, scheme: str) -> None:
        own = f"{'https' if scheme in ('https', 'wss') else 'http'}://{host}"
        if origin != own and origin not in self._origins:
            raise ProblemError(
                403,
                f"Pages of {origin!r:.200} may not read this; add it with allowed_origins, or --allow-origin",
            )

    def _caller(self, token: str, how_to_send: str, headers: Mapping[str, str] | None = None) -> Caller:
        if not self._callers:
            return Caller()
        digest, caller = _digest(token), None
        for known, each in self._callers.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                caller = each
        if caller is None:
            raise ProblemError(401, f"The token is missing or wrong; {how_to_send}", headers)
        return caller


def tokens_from(given: Iterable[str]) -> dict[str, str | None]:
    """Tokens of the command line: `TOKEN` reads everything, `USER:TOKEN` what belongs to this user."""
    found: dict[str, str | None] = {}
    for each in given:
        user, colon, token = each.rpartition(":")
        found[_checked(token)] = user if colon else None
        if colon and not user:
            raise ConfigError("A token has an empty user before its colon; give USER:TOKEN or TOKEN")
    return found


def _check_types(tokens: Any, hosts: Any, origins: Any) -> None:
    if tokens is not None and not isinstance(tokens, Mapping):
        raise ConfigError("tokens is a dict: {'a-long-token': 'user', 'another-long-token': None}")
    for user in (tokens or {}).values():
        if user is not None and not (isinstance(user, str) and user):
            raise ConfigError("The user of a token is a text, or None for all users")
    for name, given in (("allowed_hosts", hosts), ("allowed_origins", origins)):
        if isinstance(given, str) or not all(isinstance(each, str) for each in given or ()):
            raise ConfigError(f"{name} is a list of texts: [{given!r:.80}]")


def _checked(token: Any) -> str:
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise ConfigError(
            "A token must have 16 to 512 letters, digits or signs that HTTP allows; make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return token


def _token_of(headers: Mapping[str, Sequence[str]]) -> str:
    """The token of a request; "" if it has none, or more than one."""
    found = [
        value[7:].strip() for value in headers.get("authorization", ()) if value[:7].lower() == "bearer "
    ]
    for value in headers.get("sec-websocket-protocol", ()):
        found += [
            each.strip()[len(_BEARER) :] for each in value.split(",") if each.strip().startswith(_BEARER)
        ]
    return found[0] if len(found) == 1 else ""


def _by_name(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
