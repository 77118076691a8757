"""The database's URL: read in all spellings that its users write, and shown without its passwords."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from recorder.errors import ConfigError
from recorder.redaction.credentials import MASK, is_secret_name

#: How a Postgres URL may begin; Heroku and its friends leave out the "ql".
_POSTGRES = ("postgresql", "postgres")
_EXAMPLE = "postgresql://user@host:5432/database"

#: Scheme, user and password, hosts, and the rest. A password may hold a slash, as SQLAlchemy takes it.
_PARTS = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<user>[^:/@]*(?::[^@]*)?@)?(?P<hosts>[^/?#]*)(?P<rest>.*)", re.DOTALL
)
#: Words of the query that have a place of their own in a URL.
_PLACES = (("user", "username"), ("password", "password"), ("dbname", "database"), ("database", "database"))
#: What is certainly a path and no URL, so that it can be shown.
_PATH = re.compile(r"[\w ./\\~-]*")


def parse_url(url: str | os.PathLike[str] | URL) -> URL:
    """The URL of a database, its driver left out. Raises `ConfigError` naming what is wrong and the remedy.

    Several hosts come as one word of the query, `host=a:5432,b:5432`; a user and a password in the query go to their
    place before the host.
    """
    parsed = _parsed(url)
    name = parsed.get_backend_name()
    if name in _POSTGRES:
        return _as_one_postgres(parsed).set(drivername="postgresql")
    if name != "sqlite":
        raise ConfigError(
            f"Database URLs of scheme {parsed.drivername!r} are not supported; "
            "use 'sqlite:///chat_history.db' or 'postgresql://user@host/database'"
        )
    if not parsed.database or ":memory:" in parsed.database or parsed.query.get("mode") == "memory":
        raise ConfigError(
            f"{masked(parsed)!r} is an in-memory SQLite database, which dies with its connection; "
            "name a file ('sqlite:///chat_history.db'), or pass store=recorder.testing.MemoryStore() in tests"
        )
    return parsed.set(drivername="sqlite")


def file_of(url: URL) -> Path:
    """The file of a SQLite URL, also where it is written as SQLite's own: `sqlite:///file:chat.db?uri=true`."""
    name = url.database or ""
    if "uri" in url.query and name.startswith("file:"):
        name = unquote(re.sub("^file:(//)?", "", name))
    return Path(name)


def is_new_file(url: str) -> bool:
    """Whether it names a SQLite file that is not there yet."""
    found = parse_url(url)
    return found.get_backend_name() == "sqlite" and not file_of(found).exists()


def masked(url: str | URL) -> str:
    """The URL for messages: without the driver, its passwords masked. Nothing of one that cannot be read."""
    try:
        parsed = _parsed(url)
        name = parsed.get_backend_name()
        if name in _POSTGRES:
            name, parsed = "postgresql", _as_one_postgres(parsed)
    except ConfigError:
        return "the database's URL, which cannot be read"
    query = {word: MASK if is_secret_name(word) else value for word, value in parsed.query.items()}
    # SQLAlchemy quotes the stars of the query.
    shown = parsed.set(drivername=name, query=query).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", MASK)


def _parsed(url: str | os.PathLike[str] | URL) -> URL:
    if isinstance(url, URL):
        return url
    text = os.fspath(url).strip()
    # The errors of the parser quote parts of what they were given: none of them goes on.
    try:
        found = make_url(text)
    except ArgumentError:
        raise ConfigError(_no_url(text)) from None
    except ValueError:
        found = None
    if found is None or "," in (found.host or ""):
        found = _with_several_hosts(text)
    if "@" in (found.host or "") or "@" in str(found.query.get("host", "")):
        raise ConfigError("The password in the database's URL has an @; write %40 in place of it")
    return found


def _no_url(text: str) -> str:
    if _PATH.fullmatch(text):
        return f"{text!r} is no database URL; write 'sqlite:///{text or 'chat_history.db'}' for a SQLite file"
    kind = "in libpq's form of words" if re.match(r"\s*\w+\s*=", text) else "no URL that can be read"
    return (
        f"The database is given {kind} (not shown here, for it may hold a password); "
        f"write {_EXAMPLE!r} or 'sqlite:///chat_history.db'"
    )


def _with_several_hosts(text: str) -> URL:
    """The URL with its hosts in the query, where SQLAlchemy and asyncpg look for more than one."""
    parts = _PARTS.fullmatch(text)
    if parts is None or not parts["scheme"].startswith(_POSTGRES) or "," not in parts["hosts"]:
        raise ConfigError(f"The port in the database's URL is no number; write {_EXAMPLE!r}")
    found = make_url(f"{parts['scheme']}{parts['user'] or ''}{parts['rest']}")
    return found.update_query_dict({"host": unquote(parts["hosts"])})


def _as_one_postgres(url: URL) -> URL:
    """Each word of the query once; user, password and hosts where they belong."""
    query = {word: _last(word, value) for word, value in url.query.items()}
    given = [(name, query.pop(word, None)) for word, name in _PLACES]
    moved = {name: value for name, value in given if value and not getattr(url, name)}
    return url.set(query=query, **moved)  # type: ignore[arg-type]


def _last(word: str, value: str | tuple[str, ...]) -> str:
    """libpq takes the last of a word that comes twice; SQLAlchemy's users write several hosts so."""
    if isinstance(value, str):
        return value
    return ",".join(value) if word in ("host", "port") else value[-1]
