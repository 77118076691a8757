"""Which conversations are listed: conditions on their runs, their user and their last time.

A list with conditions reads every conversation that can match. A time makes these few: indexes have the rows by time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, time, timedelta
from typing import Any

from recorder.core.clock import iso, now
from recorder.core.escaping import escape
from recorder.core.json import dumps
from recorder.errors import ConfigError
from recorder.storage.reader import DatabaseReader
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED, STREAMING
from recorder.storage.statuses import IS_MODEL_CALL_SQL
from recorder.storage.store import SqlStore

Row = Mapping[str, Any]

STATUSES = (STREAMING, COMPLETE, INCOMPLETE, CANCELLED, ERROR, INTERRUPTED)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class ConversationFilter:
    """The conditions of a list; None for those that were not given. All of them must hold."""

    #: The status of the newest run.
    status: str | None = None
    #: The user of the conversation.
    user: str | None = None
    #: The model of any run: that of the response, or else that of the request.
    model: str | None = None
    #: A tag of the conversation or of any run.
    tag: str | None = None
    #: The earliest and the latest time of the newest run or message.
    since: datetime | None = None
    until: datetime | None = None
    #: Keys and values that the metadata of the conversation or of any run has, at any depth.
    metadata: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        _check_status("status", self.status)

    @property
    def is_empty(self) -> bool:
        """Whether every conversation matches."""
        return all(getattr(self, field.name) is None for field in fields(self))


def _check_status(option: str, status: str | None) -> None:
    if status is not None and status not in STATUSES:
        raise ConfigError(f"{option} is {status!r}; choose one of {', '.join(STATUSES)}")


def from_options(
    status: str | None, user: str | None, model: str | None, tag: str | None, since: str | None, until: str | None,
    metadata: Sequence[str] = (), *, prefix: str = "--",
) -> ConversationFilter:  # fmt: skip
    """The conditions of texts. Raises `ConfigError`, with the name of the option behind the prefix."""
    _check_status(f"{prefix}status", status)
    at = now()
    earliest = moment_of(f"{prefix}since", since, at)
    latest = moment_of(f"{prefix}until", until, at, end=True)
    pairs = tuple(pair_of(f"{prefix}metadata", each) for each in metadata) or None
    return ConversationFilter(status, user, model, tag, earliest, latest, pairs)


def pair_of(option: str, given: str) -> tuple[str, str]:
    """The key and the value of an option: `key:value`. Raises `ConfigError`."""
    key, colon, value = given.partition(":")
    if not (key and colon):
        raise ConfigError(f"{option} is {given!r:.80}; give a key and a value, team:support")
    return key, value


def moment_of(option: str, given: str | None, at: datetime, *, end: bool = False) -> datetime | None:
    """The time of an option: an ISO date or time, in UTC unless it says otherwise, or a duration before `at`.

    A date is the beginning of its day, or with `end` the end. Raises `ConfigError`.
    """
    if given is None:
        return None
    text = given.strip()
    try:
        if (found := _DURATION.fullmatch(text)) is not None:
            return at - timedelta(**{_UNITS[found[2]]: float(found[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} is {given!r}; give a date (2026-11-21), a time (2026-11-21T10:30) or a duration before now "
            "(90s, 30m, 2h, 3d, 1w)"
        ) from None
    if end and _DATE.fullmatch(text):
        moment = datetime.combine(moment, time.max)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_EACH = """
SELECT c.id,
    (SELECT max(m.created_at) FROM messages AS m WHERE m.conversation_id = c.id) AS said_at,
    (SELECT max(r.started_at) FROM runs AS r WHERE r.conversation_id = c.id) AS began_at
FROM conversations AS c
"""
#: The newest run of each conversation, which has the status that is shown.
_NEWEST = """
SELECT e.*, n.id AS run_id, n.status AS status FROM ({each}) AS e JOIN runs AS n ON n.id = (
    SELECT r.id FROM runs AS r WHERE r.conversation_id = e.id AND {model_call}
    ORDER BY r.started_at DESC, r.id DESC LIMIT 1)
WHERE n.status IN ({statuses})
"""
_SOME_RUN = "EXISTS (SELECT 1 FROM runs AS r WHERE r.conversation_id = c.id AND {condition})"
_MODEL = "coalesce(r.response_model, r.request_model) = :model"
#: Whether a list of tags, which is stored as JSON, contains the JSON of one tag. LIKE would ignore the case on SQLite.
_TAG = "coalesce(replace(CAST({of}.tags AS text), :tag, '') <> CAST({of}.tags AS text), false)"
#: Whether an object that is stored as JSON contains a key with one of these values.
_PAIR = """
coalesce(replace(replace(replace(CAST({of}.metadata AS text), :{name}, ''), :{name}_more, ''), :{name}_last, '')
    <> CAST({of}.metadata AS text), false)
"""
#: Whether a conversation has a run or a message on this side of a time. The indexes of both tables have their ids.
_SOME_TIME = """
c.id IN (SELECT m.conversation_id FROM messages AS m WHERE m.created_at {side}
    UNION SELECT r.conversation_id FROM runs AS r WHERE r.started_at {side})
"""


async def matching(store: SqlStore, wanted: ConversationFilter) -> dict[str, str | None]:
    """The conversations that match, with the time of the newest run or message of each; the newest first."""
    sql, parameters = _query(wanted)
    rows: Sequence[Row] = await store.rows(sql, parameters)
    if wanted.status in (STREAMING, INTERRUPTED):
        rows = await _with_real_status(store, rows, wanted.status)
    times = {
        row["id"]: max(filter(None, (row["said_at"], row["began_at"])), key=str, default=None) for row in rows
    }
    newest = sorted(times.items(), key=lambda each: (str(each[1] or ""), str(each[0])), reverse=True)
    return {id: at for id, at in newest if _is_between(at, wanted)}


async def matching_among(store: SqlStore, wanted: ConversationFilter, ids: Sequence[str]) -> set[str]:
    """Those of these conversations that match; each is looked at by itself, however many others are stored."""
    among = f"c.id IN (SELECT a.conversation_id FROM {store.dialect.key_rows} AS a)"
    sql, parameters = _query(wanted, among)
    rows: Sequence[Row] = await store.rows(sql, {**parameters, "keys": dumps([[id] for id in ids])})
    if wanted.status in (STREAMING, INTERRUPTED):
        rows = await _with_real_status(store, rows, wanted.status)
    return {row["id"] for row in rows}


def _query(wanted: ConversationFilter, *more: str) -> tuple[str, dict[str, Any]]:
    """The statement that reads the conversations, with more conditions, and its parameters.

    A conversation may have older rows than `until` and newer ones; the caller checks the newest.
    """
    conditions: list[str] = [*more]
    parameters: dict[str, Any] = {}
    if wanted.user is not None:
        conditions.append("c.user_id = :user")
        parameters["user"] = escape(wanted.user)
    if wanted.model is not None:
        conditions.append(_SOME_RUN.format(condition=_MODEL))
        parameters["model"] = escape(wanted.model)
    if wanted.tag is not None:
        conditions.append(f"({_TAG.format(of='c')} OR {_SOME_RUN.format(condition=_TAG.format(of='r'))})")
        parameters["tag"] = dumps(wanted.tag)
    for number, (key, value) in enumerate(wanted.metadata or ()):
        name = f"pair{number}"
        of_run = _SOME_RUN.format(condition=_PAIR.format(of="r", name=name))
        conditions.append(f"({_PAIR.format(of='c', name=name)} OR {of_run})")
        # The stored JSON is compact. A text ends with its quote; a number is followed by a comma or by the end.
        start = dumps(key) + ":"
        parameters |= {
            name: start + dumps(value),
            f"{name}_more": f"{start}{value},",
            f"{name}_last": f"{start}{value}}}",
        }
    if wanted.since is not None:
        conditions.append(_SOME_TIME.format(side=">= :since"))
        parameters["since"] = wanted.since
    if wanted.until is not None:
        conditions.append(_SOME_TIME.format(side="<= :until"))
        parameters["until"] = wanted.until
    each = _EACH + ("WHERE " + " AND ".join(conditions) if conditions else "")
    if wanted.status is None:
        return each, parameters
    # A run whose process is dead is stored as streaming until somebody marks it.
    stored = (STREAMING, INTERRUPTED) if wanted.status == INTERRUPTED else (wanted.status,)
    return _NEWEST.format(
        each=each, model_call=IS_MODEL_CALL_SQL, statuses=", ".join(f"'{status}'" for status in stored)
    ), parameters


async def _with_real_status(store: SqlStore, rows: Sequence[Row], status: str) -> list[Row]:
    """The rows with this status, where the run of a dead process counts as interrupted."""
    dead = await DatabaseReader(store).dead([row["run_id"] for row in rows if row["status"] == STREAMING])
    return [row for row in rows if (INTERRUPTED if row["run_id"] in dead else row["status"]) == status]


def _is_between(at: str | None, wanted: ConversationFilter) -> bool:
    """Whether the time of the newest run or message is not after `until`; the query has checked `since`."""
    return wanted.until is None or (at is not None and str(at) <= iso(wanted.until))
