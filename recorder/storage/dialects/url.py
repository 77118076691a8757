"""The database's URL: parsed in all usual spellings, and shown in messages without passwords."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from recorder.errors import ConfigError
from recorder.redaction.credentials import MASK, is_secret_name

#: The schemes of Postgres; Heroku and similar hosts write "postgres".
_POSTGRES = ("postgresql", "postgres")
_EXAMPLE = "postgresql://user@host:5432/database"

#: Scheme, user and password, hosts, and the rest. As in SQLAlchemy, a password may contain a slash.
_PARTS = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<user>[^:/@]*(?::[^@]*)?@)?(?P<hosts>[^/?#]*)(?P<rest>.*)", re.DOTALL
)
#: Parameters of the query that become parts of the URL.
_PLACES = (("user", "username"), ("password", "password"), ("dbname", "database"), ("database", "database"))
#: A path and certainly not a URL, so that a message may show it.
_PATH = re.compile(r"[\w ./\\~-]*")
#: A path that is a SQLite file though none has this name yet: it has an ending of SQLite, or says where it begins.
#: Two slashes may be a URL whose scheme or colon is missing.
_NEW_FILE = re.compile(r"(?!.*//)(?:[\w ./\\~+-]+\.(?:db|sqlite3?)|(?:/|\.{1,2}/|~/).+)", re.DOTALL)


def parse_url(url: str | os.PathLike[str] | URL) -> URL:
    """The URL of a database, without a driver. Raises `ConfigError` that names the mistake and the remedy.

    The path of a SQLite file is a URL, too. As text it must name a file that exists, end in `.db`, `.sqlite` or
    `.sqlite3`, or begin with `/`, `./`, `../` or `~/`; so a URL with a mistake does not become a file.
    Several hosts become one parameter of the query, `host=a:5432,b:5432`. A user and a password in the query move to
    their place before the host.
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
            f"{masked(parsed)!r} is an in-memory SQLite database, which is lost with its connection; "
            "name a file ('sqlite:///chat_history.db'), or pass store=recorder.testing.MemoryStore() in tests"
        )
    return parsed.set(drivername="sqlite")


def file_of(url: URL) -> Path:
    """The file of a SQLite URL, also of one in SQLite's own URI form: `sqlite:///file:chat.db?uri=true`."""
    name = url.database or ""
    if "uri" in url.query and name.startswith("file:"):
        name = unquote(re.sub("^file:(//)?", "", name))
    return Path(name)


def missing_file(path: Path) -> ConfigError:
    """The error for a SQLite file that is to be read and is not there."""
    return ConfigError(f"There is no file {path}; record something, or name another with --url")


def is_new_file(url: str) -> bool:
    """Whether the URL names a SQLite file that does not exist yet."""
    found = parse_url(url)
    return found.get_backend_name() == "sqlite" and not file_of(found).exists()


def masked(url: str | URL) -> str:
    """The URL for messages: without the driver, with masked passwords. Shows no part of a URL that cannot be parsed."""
    try:
        parsed = _parsed(url)
        name = parsed.get_backend_name()
        if name in _POSTGRES:
            name, parsed = "postgresql", _as_one_postgres(parsed)
    except ConfigError:
        return "the database's URL, which cannot be parsed"
    query = {name: MASK if is_secret_name(name) else value for name, value in parsed.query.items()}
    # SQLAlchemy percent-encodes the asterisks in the query.
    shown = parsed.set(drivername=name, query=query).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", MASK)


def _parsed(url: str | os.PathLike[str] | URL) -> URL:
    if isinstance(url, URL):
        return url
    text = os.fspath(url).strip()
    if _is_file(text) or (isinstance(url, os.PathLike) and ":/" not in text):
        return URL.create("sqlite", database=os.path.expanduser(text))
    # The parser's errors quote parts of the URL, perhaps the password. So they are replaced.
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


def _is_file(text: str) -> bool:
    """Whether the text is a SQLite file and not a URL. `:memory:` is one, too; its error says what it means."""
    if _NEW_FILE.fullmatch(text) or text == ":memory:":
        return True
    return "://" not in text and os.path.isfile(text)


def _no_url(text: str) -> str:
    if _PATH.fullmatch(text):
        return (
            f"{text!r} is no database URL, and no file has this name; write "
            f"'sqlite:///{text or 'chat_history.db'}' for a new SQLite file, or {_EXAMPLE!r}"
        )
    kind = "a libpq connection string" if re.match(r"\s*\w+\s*=", text) else "not a URL that can be parsed"
    return (
        f"The text given for the database is {kind} (it is not shown here, because it may contain a password); "
        f"write {_EXAMPLE!r} or 'sqlite:///chat_history.db'"
    )


def _with_several_hosts(text: str) -> URL:
    """The URL with its hosts in the query, where SQLAlchemy and asyncpg expect several hosts."""
    parts = _PARTS.fullmatch(text)
    if parts is None or not parts["scheme"].startswith(_POSTGRES) or "," not in parts["hosts"]:
        raise ConfigError(f"The port in the database's URL is not a number; write {_EXAMPLE!r}")
    found = make_url(f"{parts['scheme']}{parts['user'] or ''}{parts['rest']}")
    return found.update_query_dict({"host": unquote(parts["hosts"])})


def _as_one_postgres(url: URL) -> URL:
    """The URL with each parameter once, and with user, password and database in their places before the query."""
    query = {parameter: _one_value(parameter, value) for parameter, value in url.query.items()}
    given = [(name, query.pop(parameter, None)) for parameter, name in _PLACES]
    moved = {name: value for name, value in given if value and not getattr(url, name)}
    return url.set(query=query, **moved)  # type: ignore[arg-type]


def _one_value(parameter: str, value: str | tuple[str, ...]) -> str:
    """The last value of a repeated parameter, as in libpq; several hosts are joined, as SQLAlchemy writes them."""
    if isinstance(value, str):
        return value
    return ",".join(value) if parameter in ("host", "port") else value[-1]
