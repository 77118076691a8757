"""Checks what the application says about conversations and runs, and converts it into stored values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any
from uuid import UUID

from recorder.core.clock import now
from recorder.core.escaping import escape
from recorder.core.ids import new_id
from recorder.errors import ConfigError
from recorder.redaction.masking import Mask
from recorder.storage.rows import AnnotationRow, PreviousResponse
from recorder.storage.storable_values import text_of, uuid_in

#: Messages of a model have the id of their run after this, and the number of the choice after that.
_PREFIX = "run-"
_UUID_LENGTH = 36


def details_of(
    title: str | None, tags: Sequence[str] | None, metadata: Mapping[str, Any] | None
) -> dict[str, str]:
    """New values for columns of a conversation; none for what is None. Credentials in metadata are left out."""
    found: dict[str, str] = {}
    if title is not None:
        found["title"] = escape(_text("title", title))
    if tags is not None:
        if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
            raise ConfigError(f"tags is {tags!r:.60}; pass a list of texts")
        found["tags"] = Mask().json(list(tags), "tags")
    if metadata is not None:
        if not isinstance(metadata, Mapping):
            raise ConfigError(f"metadata is {metadata!r:.60}; pass a dict")
        found["metadata"] = Mask().metadata(metadata) or "{}"
    return found


def annotation(
    run_id: UUID | str, name: str, *, label: str | None, score: float | None, data: Mapping[str, Any] | None,
    message_id: UUID | str | None,
) -> AnnotationRow:  # fmt: skip
    """The row of an annotation. Raises `ConfigError` for a value that cannot be stored."""
    if label is None and score is None and not data:
        raise ConfigError(f"The annotation {name!r:.60} says nothing; pass label=, score= or data=")
    return AnnotationRow(
        run_id=uuid_of("run_id", run_id),
        id=new_id(),
        message_id=uuid_of("message_id", message_id) if message_id is not None else None,
        name=escape(_text("name", name)),
        label=escape(_text("label", label)) if label is not None else None,
        score=_score(score),
        data=Mask().json(dict(data), "data") if data else None,
        created_at=now(),
    )


def other_runs_in(given: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of a start hook say about other runs and about the price: fields of `RunStart`.

    They are the number of a further attempt with the id of the first one, if both are given, the response of OpenAI's
    Responses API that the parameters of the request name, the host, and the service tier that is asked for.
    """
    others = {
        "previous": _previous_response(parameters),
        "host": text_of(given.get("host")),
        "requested_tier": text_of(parameters.get("service_tier")),
    }
    return _attempt(given) | {name: value for name, value in others.items() if value is not None}


def _attempt(given: Mapping[str, Any]) -> dict[str, Any]:
    attempt = given.get("attempt")
    if type(attempt) is not int or not 1 < attempt < 1_000:
        return {}
    first = uuid_in(given.get("first_run_id"))
    return {"attempt": attempt, "first_run_id": str(first)} if first is not None else {}


def _previous_response(parameters: Mapping[str, Any]) -> PreviousResponse | None:
    for key, is_read_again in (("previous_response_id", False), ("response_id", True)):
        if isinstance(parameters.get(key), str) and (found := text_of(parameters[key])):
            return PreviousResponse(found, is_read_again)
    return None


def uuid_of(name: str, given: UUID | str) -> str:
    """An id as it is stored: of a UUID, its text, or the id of a model's message, "run-..."."""
    text = str(given)
    if text.startswith(_PREFIX):
        text = text.removeprefix(_PREFIX)[:_UUID_LENGTH]
    try:
        return str(UUID(text))
    except ValueError:
        raise ConfigError(
            f"{name} is {given!r:.60}; pass the run_id of the call, or the id of its message"
        ) from None


def user_id_of(given: str) -> str:
    """A user's id. Raises `ConfigError` if it is no text or empty."""
    if not _text("user", given):
        raise ConfigError("user is empty; pass the id of the user, or leave it out")
    return given


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"{name} must be a str, not {type(given).__name__}; pass str({name})")
    return given


def _score(given: Any) -> float | None:
    if given is None:
        return None
    with suppress(OverflowError):  # an integer that no float can hold
        if isinstance(given, (bool, int, float)) and isfinite(given):
            return float(given)
    raise ConfigError(f"score is {given!r:.60}; pass a finite number")
