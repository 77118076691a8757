"""Converts values from applications, frameworks and providers into values that every database accepts.

Other people's code calls the hooks: a count may be text or exceed 64 bits, a mapping may be a list, `str()` may raise.
A value that cannot be stored is left out, and the run is stored without it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from types import NoneType
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from recorder.core.escaping import escape
from recorder.redaction.masking import Mask
from recorder.storage.columns import columns_of
from recorder.storage.rows import RunEnd

log = logging.getLogger("recorder")

#: The largest integer that both databases can store.
MAX_INT = 2**63 - 1
#: The provider's fields of an end: counts, and texts with JSON among them.
_COUNTS, _TEXTS = (
    [column.name for column in columns_of(RunEnd) if column.is_nullable and column.type is type_]
    for type_ in (int, str)
)
_counts_of, _texts_of = attrgetter(*_COUNTS), attrgetter(*_TEXTS)
_COUNT_TYPES, _TEXT_TYPES = frozenset((int, NoneType)), frozenset((str, NoneType))


def text_of(value: Any) -> str | None:
    """The value as text that every database accepts; None for None. If `str()` raises, the text says so."""
    if type(value) is str and value.isascii() and "\0" not in value:
        return value  # nearly always
    if value is None:
        return None
    try:
        return escape(str(value))
    except Exception as error:  # raised by the value's own `__str__`
        return f"{type(value).__name__} without a text ({type(error).__name__})"


def count_of(value: Any) -> int | None:
    """The value as an integer from 0 to `MAX_INT`, also from text or from 3.0; None for any other value."""
    if isinstance(value, bool):
        return None
    try:
        count = int(value)
        return (
            count
            if 0 <= count <= MAX_INT and count == (float(value) if isinstance(value, str) else value)
            else None
        )
    except Exception:  # infinite, not a number, or raised by the value's own methods
        return None


def id_of(value: Any) -> UUID:
    """The value as a UUID: itself or what its text spells, else one that is computed from its text."""
    return uuid_in(value) or uuid5(NAMESPACE_OID, text_of(value) or "")


def uuid_in(value: Any) -> UUID | None:
    """The UUID that the value is or that its text spells, else None."""
    if type(value) is UUID:
        return value
    try:
        return UUID(text_of(value))
    except (TypeError, ValueError):
        return None


def list_of(value: Any) -> list[Any]:
    """The items of the value; a list of the value alone if it is a text or has no items; an empty one for None."""
    if value is None:
        return []
    try:
        return [value] if isinstance(value, (str, bytes)) else list(value)
    except Exception:  # it has no items, or its own methods raise
        return [value]


def mapping_of(value: Any) -> Mapping[str, Any]:
    """The value, or its `model_dump()`, as a mapping; an empty one for any other value."""
    if type(value) is dict:  # the usual case; `isinstance(value, Mapping)` takes ten times as long
        return value
    if value is None:
        return {}
    try:
        if isinstance(value, Mapping):
            return dict(value)
        dump = getattr(value, "model_dump", None)
        found = dump() if callable(dump) and not isinstance(value, type) else {}
    except Exception:  # raised by the value's own methods
        return {}
    return found if isinstance(found, Mapping) else {}


def first_text(given: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The text of the first value under these keys that is neither None nor empty nor zero; else None."""
    for key in keys:
        if (found := given.get(key)) is not None and not _is_false(found):
            return text_of(found)
    return None


def _is_false(value: Any) -> bool:
    try:
        return not value
    except Exception:  # an array of numpy is neither true nor false
        return False


def bare_end(end: RunEnd) -> RunEnd:
    """A copy of the end with its status and times only."""
    return RunEnd(end.status, end.ended_at, order=end.order, first_token_at=end.first_token_at)


def storable(end: RunEnd, run_id: object) -> RunEnd:
    """The end with fields that every database accepts. Logs a warning if a field was changed."""
    if _is_storable(end):
        return end
    changed: dict[str, Any] = {}
    for name in _COUNTS:
        value = getattr(end, name)
        if value is not None and (type(value) is not int or not 0 <= value <= MAX_INT):
            changed[name] = count_of(value)
    for name in _TEXTS:
        value = getattr(end, name)
        if value is not None and type(value) is not str:
            changed[name] = text_of(value)
    shown = ", ".join(f"{name}={getattr(end, name)!r:.60}" for name in changed)
    log.warning(
        "Run %s ended with values that no database accepts; they were converted or left out: %s",
        run_id,
        shown,
    )
    return replace(end, **changed)


def _is_storable(end: RunEnd) -> bool:
    """Whether every database accepts every field; nearly always true."""
    counts = _counts_of(end)
    if not (_TEXT_TYPES.issuperset(map(type, _texts_of(end))) and _COUNT_TYPES.issuperset(map(type, counts))):
        return False
    for count in counts:  # noqa: SIM110  # a generator is three times as slow
        if count is not None and not 0 <= count <= MAX_INT:
            return False
    return True


def masked(end: RunEnd, mask: Mask) -> RunEnd:
    """The end with the run's credentials masked; a provider may repeat them in any text field."""
    if not mask.may_be_in("\0".join(filter(None, _texts_of(end)))):
        return end
    for name in _TEXTS:
        if (text := getattr(end, name)) is not None:
            setattr(end, name, mask.text(text, name))
    return end
