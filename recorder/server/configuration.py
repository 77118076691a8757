"""The configuration of a server: a TOML file with the models that clients may call, and limits."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recorder.config import Config
from recorder.errors import ConfigError
from recorder.redaction.credentials import is_secret, secrets_of_urls
from recorder.redaction.ready_made import READY_MADE

#: Bytes of a configuration.
_MAX_BYTES = 1024 * 1024
#: Options of the recorder that are no values of TOML.
_NOT_IN_TOML = frozenset(("on_budget", "budgets", "priced_as"))
#: The type of an error for a name that a table does not have.
_UNKNOWN = "extra_forbidden"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class Table(BaseModel):
    """A table of the file. Other names than its fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelTable(Table):
    """`[models.NAME]`: a model that clients call by this name."""

    #: The class of `recorder.models`.
    provider: Literal["ChatOpenAI", "ChatAnthropic"]
    #: The provider's name of the model.
    model: Annotated[str, Field(min_length=1)]
    base_url: str | None = None
    #: The environment variable that holds the API key.
    api_key_env: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    #: What is sent before the conversation, as a system message.
    instructions: str | None = None
    #: The most tokens of an answer; None for the provider's limit.
    max_tokens: Count | None = None
    #: Runs of this model that are under way at once.
    max_runs: Count = 20
    #: A run that takes longer is cancelled (seconds).
    timeout: Seconds = 600.0
    #: How many exchanges of the conversation are sent again; None for all.
    history_turns: Count | None = None
    #: Further arguments of the class.
    options: dict[str, Any] = {}


class ChatTable(Table):
    """`[chat]`: limits of all runs that clients start."""

    #: Runs that are under way at once in this process, in all and for each user.
    max_runs: Count = 100
    max_runs_per_user: Count = 10
    #: How long runs that are under way may take when the server ends (seconds).
    drain_within: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = 5.0


class UpstreamTable(Table):
    """`[upstreams.NAME]`: one more provider of the recording proxy, at `/NAME/...`."""

    #: What replaces the name: "https://api.groq.com/openai".
    base_url: str
    #: The wire format of POSTs whose path is none that recorder knows.
    wire: str | None = None


class Configuration(Table):
    """The tables of the file."""

    models: dict[ModelName, ModelTable] = {}
    upstreams: dict[str, UpstreamTable] = {}
    chat: ChatTable = ChatTable()
    #: Options of the recorder: the fields of `recorder.Config`.
    recorder: dict[str, Any] = {}


#: The tables with fixed names.
_TABLES: Mapping[str, type[Table]] = {
    "models": ModelTable,
    "upstreams": UpstreamTable,
    "chat": ChatTable,
}


def read_configuration(path: str) -> Configuration:
    """The configuration in a file. Raises `ConfigError` with one line: the table, the wrong word and the right one."""
    given = _read(Path(path))
    for place, name, value in _values(given, ()):
        _refuse_secret(path, place, name, value)
    try:
        found = Configuration.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explanation(error)}") from error
    known = [each.name for each in fields(Config) if each.name not in _NOT_IN_TOML]
    for name in found.recorder:
        if name not in known:
            raise ConfigError(f"{path}: {_unknown_word('[recorder]', name, known)}")
    return found


def nearest(word: str, known: list[str]) -> str:
    """A sentence with the known word that is nearest, or with all known ones."""
    if found := get_close_matches(word.lower(), known, 1):
        return f"did you mean {found[0]!r}?"
    return f"there is {', '.join(map(repr, sorted(known)))}" if known else "there is none"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ConfigError(f"{path} is longer than {_MAX_BYTES:,} bytes, so it is no configuration")
        return tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, or no TOML
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not valid TOML: {_one_line(str(error))}") from error


def _values(table: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str, Any]]:
    """The values in all tables: the name of the table, the name in it, and the value."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _values(value, (*place, name))
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and isinstance(value, list):
                yield from _values(each, (*place, name))
            elif not isinstance(each, (dict, list)):
                yield _shown(place), name, each


def _refuse_secret(path: str, place: str, name: str, value: Any) -> None:
    """Raise `ConfigError` for a key, whose value is not repeated: files are copied and committed."""
    is_url = isinstance(value, str) and "://" in value
    if is_secret(name, value) or _has_key(value) or (is_url and any(secrets_of_urls(value))):
        raise ConfigError(
            f"{path}: {place} {name} holds a key; put it into an environment variable, and name that in api_key_env"
        )


def _has_key(value: Any) -> bool:
    return isinstance(value, str) and READY_MADE["keys"].find(value, 0) is not None


def _explanation(error: ValidationError) -> str:
    """The first error in one line."""
    first = error.errors(include_url=False)[0]
    *place, name = first["loc"]
    table = _shown(tuple(map(str, place)))
    if first["type"] == _UNKNOWN:
        return _unknown_word(table, str(name), _known_at(place))
    if first["type"] == "missing":
        return f"{table} has no {name!r}, which it needs"
    return (
        f"{table} {name}: {_one_line(first['msg'])}"  # without the value, which may be a key in a wrong place
    )


def _known_at(place: list[Any]) -> list[str]:
    return [*(_TABLES.get(str(place[0]), Configuration) if place else Configuration).model_fields]


def _unknown_word(table: str, word: str, known: list[str]) -> str:
    return f"{table} has no {word!r}; {nearest(word, known)}"


def _shown(place: tuple[str, ...]) -> str:
    return f"[{'.'.join(place)}]" if place else "the file, at its top,"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
