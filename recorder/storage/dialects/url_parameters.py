"""The parameters after the `?` of a Postgres URL: those of libpq, other drivers and poolers, and server settings.

asyncpg knows few of them and sends all others to the server as settings; the server then refuses the connection. So
they are translated here, or left out where they make no difference.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL

from recorder.errors import ConfigError

log = logging.getLogger("recorder")

#: Timeouts of connecting and of a statement (seconds), unless the URL has others.
CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 30.0

#: The parameters that asyncpg reads from a URL itself.
_ASYNCPG = frozenset((
    "host", "port", "dbname", "database", "user", "password", "passfile", "service", "sslmode", "sslcert", "sslkey",
    "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version",
    "target_session_attrs", "krbsrvname", "gsslib",
))  # fmt: skip
#: Other names of these and of server settings, in SQLAlchemy, JDBC, Prisma and libpq.
_ALIASES = {
    "ssl": "sslmode",
    "hostaddr": "host",
    "timeout": "connect_timeout",
    "loginTimeout": "connect_timeout",
    "ApplicationName": "application_name",
    "fallback_application_name": "application_name",
    "schema": "search_path",
    "currentSchema": "search_path",
}
#: Left out: parameters for pools, prepared statements, keepalives, or a library that is not used here.
_HARMLESS = frozenset((
    "async_fallback", "connection_limit", "gssdelegation", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "load_balance_hosts", "max_cacheable_statement_size", "max_cached_statement_lifetime",
    "max_protocol_version", "min_protocol_version", "pgbouncer", "pool_timeout", "prepareThreshold",
    "prepare_threshold", "prepared_statement_cache_size", "prepared_statement_name_func", "socketTimeout",
    "socket_timeout", "sslcompression", "sslkeylogfile", "sslsni", "statement_cache_size", "tcp_user_timeout",
))  # fmt: skip
#: Left out, with one warning: security checks of libpq that asyncpg cannot make. With the values listed here they check
#: nothing, and there is no warning.
_UNCHECKED = {
    "channel_binding": frozenset(("prefer", "disable")),
    "gssencmode": frozenset(("prefer", "disable")),
    "require_auth": frozenset(("",)),
    "requirepeer": frozenset(("",)),
    "sslcertmode": frozenset(("allow", "disable")),
}
#: Two parameters may set the same: those in `_FIRST` take precedence, those in `_SECOND` do not.
_FIRST = frozenset(("application_name", "host"))
_SECOND = frozenset(("fallback_application_name", "hostaddr"))
_TIMES = frozenset(("connect_timeout", "command_timeout"))
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
#: Values of `ssl` in JDBC and other libraries, as values of `sslmode`.
_SSL = {**dict.fromkeys(("true", "1", "on"), "require"), **dict.fromkeys(("false", "0", "off"), "disable")}
#: Values of `client_encoding` that mean UTF-8, the only encoding that asyncpg uses.
_UTF8 = frozenset(("auto", "utf8", "utf-8", "unicode"))
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
#: The value of `sslrootcert` for the operating system's certificates.
_SYSTEM = "system"

_KNOWN = frozenset((
    *_ASYNCPG, *_ALIASES, *_HARMLESS, *_UNCHECKED, *_TIMES, "application_name", "client_encoding", "search_path",
))  # fmt: skip
_warned: set[str] = set()


class ConnectArguments(NamedTuple):
    """Arguments of `asyncpg.connect`; times in seconds."""

    dsn: str
    password: str | None
    timeout: float
    command_timeout: float
    #: None where `sslmode` in the URL decides.
    ssl: ssl.SSLContext | None


def connect_arguments(url: URL) -> ConnectArguments:
    """The arguments for a URL. Raises `ConfigError` that names the wrong parameter and what to write."""
    query: dict[str, str] = {}
    for parameter, value in url.query.items():
        _add(query, parameter, str(value))
    user_timeout(url)
    context = _system_certificates(query)
    _check_files(query)
    times = {parameter: _seconds(parameter, query.pop(parameter, None)) for parameter in _TIMES}
    query.setdefault("application_name", "recorder")
    return ConnectArguments(
        dsn=url.set(drivername="postgresql", query=query).render_as_string(hide_password=False),
        password=url.password or None,  # the rendered URL has no password if it has no user
        timeout=times["connect_timeout"] or CONNECT_TIMEOUT,
        command_timeout=times["command_timeout"] or COMMAND_TIMEOUT,
        ssl=context,
    )


def user_timeout(url: URL) -> float:
    """Seconds without an acknowledgement after which a connection is closed; libpq's parameter is in milliseconds."""
    given = str(url.query.get("tcp_user_timeout", "0"))
    if not given.isdigit():
        raise ConfigError(
            f"tcp_user_timeout={given!r} in the database's URL is not a number of milliseconds; write 30000"
        )
    return int(given) / 1000 or COMMAND_TIMEOUT


def advice(parameter: str, refusal: str) -> str:
    """What the user can do about a parameter that was sent as a setting and refused with this message."""
    if "invalid value" in refusal:
        return "; write another value for it in the URL, or leave it out"
    if "startup" in refusal:
        return (
            f"; the pooler does not pass it on: remove {parameter} from the URL, and set it for the user "
            f"(ALTER ROLE ... SET {parameter} = ...)"
        )
    near = get_close_matches(parameter, _KNOWN, n=1, cutoff=0.75)
    instead = f", or write {near[0]!r}" if near else ""
    return (
        f"; {parameter!r} is neither a parameter of libpq nor a setting of this server: leave it out of the URL"
        f"{instead}"
    )


def _add(query: dict[str, str], parameter: str, value: str) -> None:
    """Add a parameter to the query in the form of asyncpg or the server, unless it is left out."""
    if _is_left_out(parameter, value):
        return
    name = _ALIASES.get(parameter, parameter)
    if name == "sslmode":
        value = _SSL.get(value.lower(), value.lower().replace("_", "-"))
    if name not in _KNOWN and (proper := _proper_spelling(parameter)):
        raise ConfigError(f"The parameter {parameter!r} in the database's URL is spelled {proper!r}")
    if name in _CHOICES and value not in _CHOICES[name]:
        choices = ", ".join(_CHOICES[name])
        raise ConfigError(f"{parameter}={value!r} in the database's URL is not known; write one of {choices}")
    if parameter in _SECOND:
        query.setdefault(name, value)
    elif query.get(name, value) == value or name in _FIRST:
        query[name] = value
    else:
        raise ConfigError(f"The database's URL has two different values of {name!r}; leave one of them out")


def _is_left_out(parameter: str, value: str) -> bool:
    """Whether a parameter has no effect here. Warns once of a security check that asyncpg cannot make."""
    if parameter in _UNCHECKED and value not in _UNCHECKED[parameter] and parameter not in _warned:
        _warned.add(parameter)
        log.warning(
            "%s in the database's URL is not checked: asyncpg cannot check it, and connects without it. Use "
            "sslmode=verify-full to verify the server",
            parameter,
        )
    if parameter == "client_encoding" and value.lower() not in _UTF8:
        raise ConfigError(
            f"client_encoding={value!r} in the database's URL is not possible: text is always sent as UTF-8, "
            "whatever the database's own encoding is; leave it out"
        )
    return parameter in _HARMLESS or parameter in _UNCHECKED or parameter == "client_encoding"


def _proper_spelling(parameter: str) -> str | None:
    """The known parameter that differs only in upper and lower case or in dashes."""
    plain = parameter.lower().replace("-", "_")
    return next((known for known in sorted(_KNOWN) if known.lower() == plain), None)


def _system_certificates(query: dict[str, str]) -> ssl.SSLContext | None:
    """For `sslrootcert=system`, a context that trusts the operating system's certificates; otherwise None."""
    if query.get("sslrootcert") != _SYSTEM:
        return None
    del query["sslrootcert"]
    if query.pop("sslmode", "verify-full") != "verify-full":
        raise ConfigError("sslrootcert=system in the database's URL requires sslmode=verify-full")
    _check_files(query)
    context = ssl.create_default_context()
    if certificate := query.pop("sslcert", None):
        context.load_cert_chain(certificate, query.pop("sslkey", None), query.pop("sslpassword", None))
    return context


def _check_files(query: Mapping[str, str]) -> None:
    for parameter in _FILES if query.get("sslmode") != "disable" else ():
        if (path := query.get(parameter)) and not Path(path).is_file():
            raise ConfigError(
                f"{parameter}={path!r} in the database's URL names no file; write a file's path"
            )


def _seconds(parameter: str, given: str | None) -> float | None:
    """A number of seconds; None without a value, and for zero, which means no limit in libpq."""
    try:
        found = float(given or 0)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise ConfigError(
            f"{parameter}={given!r} in the database's URL is not a number of seconds; write {parameter}=10"
        )
    return found or None
