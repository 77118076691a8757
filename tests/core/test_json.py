"""JSON as providers and applications write it, well or not."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.json import dumps, loads
from tests.wires import unhurried

_TEXT = st.text(st.characters(exclude_categories=()), max_size=10)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=15,
)


def joined(value: Any) -> Any:
    """The value with halves of characters that stand side by side as the character: JSON cannot say more."""
    return json.loads(json.dumps(value))


@unhurried
@given(_VALUES)
def test_any_json_value_comes_back(value: Any) -> None:
    """Lone surrogates, too."""
    assert loads(dumps(value)) == joined(value)
    assert loads(dumps(value, sort_keys=True)) == joined(value)
    assert loads(dumps(value).encode()) == joined(value)


def test_text_is_compact_and_in_utf8() -> None:
    """For tokens are stored in it."""
    assert dumps({"b": ["ä", 1.5, None], "a": True}) == '{"b":["ä",1.5,null],"a":true}'
    assert dumps({"b": 1, "a": {"d": 2, "c": 3}}, sort_keys=True) == '{"a":{"c":3,"d":2},"b":1}'
    assert dumps({"b": 2**80, "a": "\ud83c"}, sort_keys=True) == f'{{"a":"\\ud83c","b":{2**80}}}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "\\ud83c"}', {"a": "\ud83c"}),
        ('"\\ud83c\\udf88"', "🎈"),
        ("[Infinity, -Infinity]", [math.inf, -math.inf]),
        (b'"\xff"', "\ufffd"),
        ('"\ud83c"', "\ud83c"),
    ],
    ids=["half a character", "a pair", "infinity", "invalid UTF-8", "raw surrogates"],
)
def test_what_orjson_refuses_is_read(text: bytes | str, value: Any) -> None:
    """Providers send it, and the SDK takes it."""
    assert loads(text) == value


def test_integers_of_any_size_are_written() -> None:
    """Those over 64 bits are read as floats."""
    assert dumps([2**64 - 1, 2**64, -(2**80)]) == f"[{2**64 - 1},{2**64},{-(2**80)}]"
    assert loads(dumps([2**64 - 1, 2**80])) == [2**64 - 1, 2.0**80]


def test_nan_is_read() -> None:
    """It is not itself, so it stands alone."""
    assert math.isnan(loads("NaN"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "{]", "[DONE]", "nonsense", b"\xff", "1" * 5_000, "[" * 200_000 + "]" * 200_000],
    ids=["nothing", "cut off", "mixed up", "terminator", "words", "bytes", "5,000 digits", "200,000 deep"],
)
def test_no_json_is_a_value_error(text: bytes | str) -> None:
    """Never another error, however long or deep."""
    with pytest.raises(ValueError, match=r".+"):
        loads(text)


# -- objects -------------------------------------------------------------------------------------------------


class Pydantic:
    """A pydantic model, as far as it concerns us."""

    def model_dump(self, *, mode: str) -> dict[str, str]:
        return {"mode": mode}


@dataclass
class Point:
    """A dataclass."""

    x: int


class Color(Enum):
    """An enumeration."""

    RED = "red"


class Named:
    """An object with nothing but its text."""

    def __str__(self) -> str:
        return "named"


_OBJECTS: dict[str, tuple[Any, str]] = {
    "pydantic": (Pydantic(), '{"mode":"json"}'),
    "a pydantic class": (Pydantic, json.dumps(str(Pydantic))),
    "dataclass": (Point(1), '{"x":1}'),
    "enumeration": (Color.RED, '"red"'),
    "any other": (Named(), '"named"'),
    "mapping": (MappingProxyType({"a": 1}), '{"a":1}'),
    "tuple": ((1, 2), "[1,2]"),
    "set": ({1}, "[1]"),
    "bytes": (b"\x00\xff", '"00ff"'),
    "time": (datetime(2026, 11, 21, tzinfo=UTC), '"2026-11-21T00:00:00+00:00"'),
    "uuid": (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    "decimal": (Decimal("1.50"), '"1.50"'),
    "numbers that JSON does not have": ([math.nan, math.inf, -math.inf], "[null,null,null]"),
    "keys that are no text": ({1: "a", None: "b", 2.5: "c"}, '{"1":"a","null":"b","2.5":"c"}'),
}


@pytest.mark.parametrize(("value", "text"), _OBJECTS.values(), ids=_OBJECTS)
def test_objects_have_json(value: Any, text: str) -> None:
    """Beside what orjson refuses as well."""
    assert dumps(value) == text
    assert dumps([value, "\ud83c"]) == f'[{text},"\\ud83c"]'


def test_the_words_for_other_numbers_stay_words_in_texts() -> None:
    """Where the standard library writes both."""
    value = [2**80, math.nan, "NaN", 'say "NaN", \\Infinity', {"-Infinity": -math.inf}]
    expected = [2**80, None, "NaN", 'say "NaN", \\Infinity', {"-Infinity": None}]
    assert json.loads(dumps(value)) == expected


class Broken:
    """An object whose methods fail."""

    def model_dump(self, **options: Any) -> Any:
        raise RuntimeError("not now")


def _circle() -> list[Any]:
    found: list[Any] = []
    found.append({"again": found})
    return found


def _deep(depth: int) -> Any:
    found: Any = "deep"
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_circle(), "list without JSON (ValueError)"),
        (_deep(100_000), "list without JSON (RecursionError)"),
        ({"x": Broken()}, "dict without JSON (RuntimeError)"),
    ],
    ids=["a circle", "too deep", "broken"],
)
def test_what_has_no_json_is_a_text_that_says_so(value: Any, expected: str) -> None:
    """A recording goes on without it."""
    assert loads(dumps(value)) == expected


def test_deep_values_are_written() -> None:
    """Deeper than orjson goes."""
    assert loads(dumps(_deep(600))) == _deep(600)
