"""What applications, frameworks and providers say of a run, as every database takes it.

Hooks are called by other people's code: a count may be a text or beyond 64 bits, a mapping may be a list, `str()` may
raise. What cannot be stored is left out, and the run is stored all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from types import NoneType
from typing import Any

from recorder.core.escaping import escape
from recorder.redaction.masking import Mask
from recorder.storage.rows import RunEnd

log = logging.getLogger("recorder")

#: The largest integer that both databases have.
MAX_INT = 2**63 - 1
_COUNTS = ("input_tokens", "output_tokens", "total_tokens")
_TEXTS = ("finish_reason", "response_id", "response_model", "error_type", "error_message", "usage")
_counts_of, _texts_of = attrgetter(*_COUNTS), attrgetter(*_TEXTS)
_NO_COUNTS = (None, None, None)
_COUNT_TYPES, _TEXT_TYPES = frozenset((int, NoneType)), frozenset((str, NoneType))


def text_of(value: Any) -> str | None:
    """The value as text that every database takes; None for None, and for what has no text."""
    if value is None:
        return None
    try:
        return escape(str(value))
    except Exception as error:  # of the value's own `__str__`
        return f"{type(value).__name__} without a text ({type(error).__name__})"


def count_of(value: Any) -> int | None:
    """The value as a count: a whole number from 0 to `MAX_INT`, also where it is written as text or as 3.0."""
    if isinstance(value, bool):
        return None
    try:
        count = int(value)
        return (
            count
            if 0 <= count <= MAX_INT and count == (float(value) if isinstance(value, str) else value)
            else None
        )
    except Exception:  # infinite, no number, or of the value's own methods
        return None


def mapping_of(value: Any) -> Mapping[str, Any]:
    """The value as a mapping; empty for what is none."""
    if type(value) is dict:  # as most are: to ask what a `Mapping` is takes ten times as long
        return value
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump() if callable(dump) and not isinstance(value, type) else {}
    return found if isinstance(found, Mapping) else {}


def bare_end(end: RunEnd) -> RunEnd:
    """Of an end only how and when."""
    return RunEnd(end.status, end.ended_at, order=end.order, first_token_at=end.first_token_at)


def storable(end: RunEnd, run_id: object) -> RunEnd:
    """The end with every field as all databases take it; what was changed is told in the log."""
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
    told = ", ".join(f"{name}={getattr(end, name)!r:.60}" for name in changed)
    log.warning("Run %s ended with values that no database takes as they are, or at all: %s", run_id, told)
    return replace(end, **changed)


def _is_storable(end: RunEnd) -> bool:
    """Whether every field is as all databases take it, as nearly always."""
    counts = _counts_of(end)
    if not (_TEXT_TYPES.issuperset(map(type, _texts_of(end))) and _COUNT_TYPES.issuperset(map(type, counts))):
        return False
    return counts == _NO_COUNTS or all(0 <= (count or 0) <= MAX_INT for count in counts)


def masked(end: RunEnd, mask: Mask) -> RunEnd:
    """The end without the run's credentials, which a provider may repeat in any of its words."""
    if not mask.may_be_in("\0".join(filter(None, _texts_of(end)))):
        return end
    for name in _TEXTS:
        if (text := getattr(end, name)) is not None:
            setattr(end, name, mask.text(text, name))
    return end
