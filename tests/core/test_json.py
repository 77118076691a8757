"""JSON is read and written as providers and applications write it, valid or not."""

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
    """The value with each surrogate pair as one character, because JSON cannot write the two halves apart."""
    return json.loads(json.dumps(value))


@unhurried
@given(_VALUES)
def test_loads_returns_the_value_that_was_dumped(value: Any) -> None:
    """This includes halves of surrogate pairs."""
    assert loads(dumps(value)) == joined(value)
    assert loads(dumps(value, sort_keys=True)) == joined(value)
    assert loads(dumps(value).encode()) == joined(value)


def test_text_is_compact_and_in_utf8() -> None:
    """Tokens are stored in this form."""
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
    ids=["half a pair", "a pair", "infinity", "invalid UTF-8", "raw surrogates"],
)
def test_loads_reads_what_orjson_refuses(text: bytes | str, value: Any) -> None:
    """Providers send it, and the SDKs accept it."""
    assert loads(text) == value


def test_integers_of_any_size_are_written() -> None:
    """Integers of more than 64 bits are read as floats."""
    assert dumps([2**64 - 1, 2**64, -(2**80)]) == f"[{2**64 - 1},{2**64},{-(2**80)}]"
    assert loads(dumps([2**64 - 1, 2**80])) == [2**64 - 1, 2.0**80]


def test_nan_is_read() -> None:
    """NaN does not equal itself, so it has a test of its own."""
    assert math.isnan(loads("NaN"))


@pytest.mark.parametrize(
    "text",
    ["", "{", "{]", "[DONE]", "nonsense", b"\xff", "1" * 5_000, "[" * 200_000 + "]" * 200_000],
    ids=["nothing", "cut off", "mixed up", "terminator", "words", "bytes", "5,000 digits", "200,000 deep"],
)
def test_a_text_that_is_no_json_raises_a_value_error(text: bytes | str) -> None:
    """No other error is raised, however long or deep the text is."""
    with pytest.raises(ValueError, match=r".+"):
        loads(text)


# -- objects -------------------------------------------------------------------------------------------------


class Pydantic:
    """A fake of a pydantic model."""

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
    """An object that has only a text."""

    def __str__(self) -> str:
        return "named"


_OBJECTS: dict[str, tuple[Any, str]] = {
    "pydantic": (Pydantic(), '{"mode":"json"}'),
    "a pydantic class": (Pydantic, json.dumps(str(Pydantic))),
    "dataclass": (Point(1), '{"x":1}'),
    "enumeration": (Color.RED, '"red"'),
    "any other object": (Named(), '"named"'),
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
def test_objects_are_written_as_json(value: Any, text: str) -> None:
    """They are written the same beside a text that orjson refuses."""
    assert dumps(value) == text
    assert dumps([value, "\ud83c"]) == f'[{text},"\\ud83c"]'


def test_nan_and_infinity_inside_of_texts_are_not_changed() -> None:
    """The standard library writes the numbers and the texts with the same letters."""
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
def test_a_value_that_cannot_be_json_becomes_a_text_with_its_error(value: Any, expected: str) -> None:
    """A run is recorded although a value of it cannot be written."""
    assert loads(dumps(value)) == expected


def test_deep_values_are_written() -> None:
    """The value is nested deeper than orjson writes."""
    assert loads(dumps(_deep(600))) == _deep(600)
