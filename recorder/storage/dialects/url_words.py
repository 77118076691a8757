"""The words after the `?` of a Postgres URL: libpq's, other drivers' and poolers', and settings of the server.

asyncpg knows few of them and sends all others to the server as settings, which refuses the connection. So they are
translated here, or left out where they make no difference.
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

#: Seconds until a connection, and until a statement, is given up, unless the URL says otherwise.
CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 30.0

#: What asyncpg reads of a URL by itself.
_OF_ASYNCPG = frozenset((
    "host", "port", "dbname", "database", "user", "password", "passfile", "service", "sslmode", "sslcert", "sslkey",
    "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version",
    "target_session_attrs", "krbsrvname", "gsslib",
))  # fmt: skip
#: Other names for these, and for settings of the server: of SQLAlchemy, JDBC, Prisma and libpq.
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
#: What is about pools, prepared statements, keepalives, or a library that is not used here; left out.
_HARMLESS = frozenset((
    "async_fallback", "connection_limit", "gssdelegation", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "load_balance_hosts", "max_cacheable_statement_size", "max_cached_statement_lifetime",
    "max_protocol_version", "min_protocol_version", "pgbouncer", "pool_timeout", "prepareThreshold",
    "prepare_threshold", "prepared_statement_cache_size", "prepared_statement_name_func", "socketTimeout",
    "socket_timeout", "sslcompression", "sslkeylogfile", "sslsni", "statement_cache_size", "tcp_user_timeout",
))  # fmt: skip
#: What libpq's users ask of the server for safety and asyncpg cannot check: left out, and said once where the value
#: asks for something.
_UNCHECKED = {
    "channel_binding": frozenset(("prefer", "disable")),
    "gssencmode": frozenset(("prefer", "disable")),
    "require_auth": frozenset(("",)),
    "requirepeer": frozenset(("",)),
    "sslcertmode": frozenset(("allow", "disable")),
}
#: Of two words for the same the one that counts, and the one that does not.
_FIRST = frozenset(("application_name", "host"))
_SECOND = frozenset(("fallback_application_name", "hostaddr"))
_TIMES = frozenset(("connect_timeout", "command_timeout"))
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
#: libpq takes `ssl=true` of JDBC's users for this; others write all of them.
_SSL = {**dict.fromkeys(("true", "1", "on"), "require"), **dict.fromkeys(("false", "0", "off"), "disable")}
#: asyncpg speaks nothing else.
_UTF8 = frozenset(("auto", "utf8", "utf-8", "unicode"))
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
#: The certificates of the operating system, in place of a file of them.
_SYSTEM = "system"

_KNOWN = frozenset((
    *_OF_ASYNCPG, *_ALIASES, *_HARMLESS, *_UNCHECKED, *_TIMES, "application_name", "client_encoding", "search_path",
))  # fmt: skip
_warned: set[str] = set()


class Arguments(NamedTuple):
    """What to call asyncpg with."""

    dsn: str
    password: str | None
    timeout: float
    command_timeout: float
    #: None where `sslmode` in the URL says it.
    ssl: ssl.SSLContext | None


def arguments(url: URL) -> Arguments:
    """The arguments for a URL. Raises `ConfigError` with the word that cannot be, and what to write."""
    query: dict[str, str] = {}
    for word, value in url.query.items():
        _take(query, word, str(value))
    user_timeout(url)
    context = _system_certificates(query)
    _check_files(query)
    times = {word: _seconds(word, query.pop(word, None)) for word in _TIMES}
    query.setdefault("application_name", "recorder")
    return Arguments(
        dsn=url.set(drivername="postgresql", query=query).render_as_string(hide_password=False),
        password=url.password or None,  # which is not rendered without a user
        timeout=times["connect_timeout"] or CONNECT_TIMEOUT,
        command_timeout=times["command_timeout"] or COMMAND_TIMEOUT,
        ssl=context,
    )


def user_timeout(url: URL) -> float:
    """Seconds after which a connection is given up that acknowledges nothing; libpq's word counts milliseconds."""
    given = str(url.query.get("tcp_user_timeout", "0"))
    if not given.isdigit():
        raise ConfigError(
            f"tcp_user_timeout={given!r} in the database's URL is no number of milliseconds; write 30000"
        )
    return int(given) / 1000 or COMMAND_TIMEOUT


def advice(word: str, refusal: str) -> str:
    """What to do about a word that was sent as a setting and refused in these words."""
    if "invalid value" in refusal:
        return "; write another value for it in the URL, or leave it out"
    if "startup" in refusal:
        return (
            f"; the pooler does not pass it on: take {word} out of the URL, and set it for the user "
            f"(ALTER ROLE ... SET {word} = ...)"
        )
    near = get_close_matches(word, _KNOWN, n=1, cutoff=0.75)
    instead = f", or write {near[0]!r}" if near else ""
    return f"; {word!r} is neither a word of libpq nor a setting of this server: leave it out of the URL{instead}"


def _take(query: dict[str, str], word: str, value: str) -> None:
    """Put one word into the query as asyncpg or the server understands it; nothing of one that is left out."""
    if _is_left_out(word, value):
        return
    name = _ALIASES.get(word, word)
    if name == "sslmode":
        value = _SSL.get(value.lower(), value.lower().replace("_", "-"))
    if name not in _KNOWN and (proper := _in_other_letters(word)):
        raise ConfigError(f"The word {word!r} in the database's URL is written {proper!r}")
    if name in _CHOICES and value not in _CHOICES[name]:
        choices = ", ".join(_CHOICES[name])
        raise ConfigError(f"{word}={value!r} in the database's URL is not known; write one of {choices}")
    if word in _SECOND:
        query.setdefault(name, value)
    elif query.get(name, value) == value or name in _FIRST:
        query[name] = value
    else:
        raise ConfigError(f"The database's URL says {name!r} twice and not the same; leave one of them out")


def _is_left_out(word: str, value: str) -> bool:
    """Whether a word is for a library that is not used here. Warns of one that asks for what cannot be checked."""
    if word in _UNCHECKED and value not in _UNCHECKED[word] and word not in _warned:
        _warned.add(word)
        log.warning(
            "%s in the database's URL is not checked: asyncpg cannot, and connects all the same. TLS with "
            "sslmode=verify-full tells you whom you speak to",
            word,
        )
    if word == "client_encoding" and value.lower() not in _UTF8:
        raise ConfigError(
            f"client_encoding={value!r} in the database's URL cannot be: text is sent as UTF-8, whatever the "
            "database's own encoding; leave it out"
        )
    return word in _HARMLESS or word in _UNCHECKED or word == "client_encoding"


def _in_other_letters(word: str) -> str | None:
    """The word that is meant where only its letters' case or its dashes differ."""
    plain = word.lower().replace("-", "_")
    return next((known for known in sorted(_KNOWN) if known.lower() == plain), None)


def _system_certificates(query: dict[str, str]) -> ssl.SSLContext | None:
    """A context that trusts what the operating system trusts, for `sslrootcert=system`; None for all others."""
    if query.get("sslrootcert") != _SYSTEM:
        return None
    del query["sslrootcert"]
    if query.pop("sslmode", "verify-full") != "verify-full":
        raise ConfigError("sslrootcert=system in the database's URL goes with sslmode=verify-full only")
    _check_files(query)
    context = ssl.create_default_context()
    if certificate := query.pop("sslcert", None):
        context.load_cert_chain(certificate, query.pop("sslkey", None), query.pop("sslpassword", None))
    return context


def _check_files(query: Mapping[str, str]) -> None:
    for word in _FILES if query.get("sslmode") != "disable" else ():
        if (path := query.get(word)) and not Path(path).is_file():
            raise ConfigError(f"{word}={path!r} in the database's URL names no file; write the path of one")


def _seconds(word: str, given: str | None) -> float | None:
    """A number of seconds; None for none, and for zero, which to libpq means without a limit."""
    try:
        found = float(given or 0)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise ConfigError(f"{word}={given!r} in the database's URL is no number of seconds; write {word}=10")
    return found or None
