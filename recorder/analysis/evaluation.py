"""What an analyzer returns, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from recorder.core.json import dumps, loads

#: The longest label (characters), and the longest data (characters of JSON).
MAX_LABEL = 200
MAX_DATA = 16_384
_FIELDS = frozenset(("label", "score", "data"))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One result: a label, a number, other data, or several of them. Raises `ValueError` for values that cannot be
    stored."""

    label: str | None = None
    score: float | None = None
    data: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.label is not None and not (isinstance(self.label, str) and 0 < len(self.label) <= MAX_LABEL):
            raise ValueError(f"label is {self.label!r:.60}; a label is a text of 1 to {MAX_LABEL} characters")
        if self.score is not None and not _is_number(self.score):
            raise ValueError(f"score is {self.score!r:.60}; a score is a finite number")
        if self.data is not None and len(_json(self.data)) > MAX_DATA:
            raise ValueError(f"data has more than {MAX_DATA:,} characters as JSON; return less")
        if self.label is None and self.score is None and not self.data:
            raise ValueError("the evaluation is empty; return None where there is nothing to say")


def evaluation_from(returned: Any) -> Evaluation | None:
    """The result of an analyzer: a label, a score, a dict or an `Evaluation`; None is nothing.

    A dict with no other keys than label, score and data is an evaluation; another one is its data. Raises `ValueError`.
    """
    if returned is None:
        return None
    if isinstance(returned, Evaluation):
        return _plain(returned)
    if isinstance(returned, str):
        return _plain(Evaluation(label=returned))
    if isinstance(returned, Mapping):
        return _plain(Evaluation(**returned) if returned.keys() <= _FIELDS else Evaluation(data=returned))
    if _is_number(returned):
        return Evaluation(score=float(returned))
    raise ValueError(
        f"it returned {type(returned).__name__} {returned!r:.60}; "
        "return a label, a score, a dict, an Evaluation or None"
    )


def _plain(found: Evaluation) -> Evaluation:
    """The same with plain values: what a worker process sends must need none of the analyzer's own classes."""
    return Evaluation(
        None if found.label is None else "".join(found.label),
        None if found.score is None else float(found.score),
        None if found.data is None else loads(_json(found.data)),
    )


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (bool, int, float)) and isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _json(data: Any) -> str:
    if not isinstance(data, Mapping):
        raise ValueError(f"data is {data!r:.60}; data is a dict")
    return dumps(dict(data))
