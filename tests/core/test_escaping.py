"""Text is escaped into a form that every database stores, and unescaped to an equal text."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recorder.core.escaping import ESCAPE, escape, escape_json, unescape, unescape_json
from tests.wires import unhurried

#: Texts of any characters, more often of those that need escaping.
_TEXT = st.text(
    st.characters(exclude_categories=()) | st.sampled_from("\x00\ud83c\udf88\udfff\ufdd0\\u0\"'\u2028d"),
    max_size=12,
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=15,
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def refused(text: str) -> bool:
    """Whether some database refuses the text or ends it too early."""
    return "\x00" in text or bool(_SURROGATES.search(text))


def strings(value: Any) -> list[str]:
    """Every string of a JSON value, including its keys."""
    if isinstance(value, dict):
        return [text for pair in value.items() for entry in pair for text in strings(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in strings(entry)]
    return [value] if isinstance(value, str) else []


# -- text ----------------------------------------------------------------------------------------------------


@unhurried
@given(_TEXT)
@example(ESCAPE + "0000")
@example(ESCAPE + ESCAPE + "fdd0")
@example("\ud83c\udf88")
def test_unescape_returns_the_text_that_was_escaped(text: str) -> None:
    """The escaped text has no character that a database refuses."""
    assert unescape(escape(text)) == text
    assert not refused(escape(text))
    escape(text).encode()


@unhurried
@given(_TEXT, _TEXT)
def test_different_texts_stay_different(one: str, other: str) -> None:
    """An escaped text can be a key."""
    assert (escape(one) == escape(other)) == (one == other)


def test_only_nul_surrogates_and_the_escape_are_escaped() -> None:
    """Other text is not changed."""
    plain = "Grüße 🎈\u2028\u202e\ufeff\x01\\u0000"
    assert escape(plain) == unescape(plain) == plain
    assert escape("a\x00b\ud83c\ufdd0") == "a\ufdd00000b\ufdd0d83c\ufdd0fdd0"
    assert (
        unescape("\ufdd0 no escape, \ufdd0zzzz neither, \ufdd0")
        == "\ufdd0 no escape, \ufdd0zzzz neither, \ufdd0"
    )


@unhurried
@given(_TEXT)
def test_sqlite_stores_all_of_an_escaped_text(text: str) -> None:
    """Its functions count all characters, and its driver accepts the text."""
    with closing(sqlite3.connect(":memory:")) as connection:
        [(found, length)] = connection.execute("SELECT :text, length(:text)", {"text": escape(text)})
    assert (unescape(found), length) == (text, len(escape(text)))


# -- JSON ----------------------------------------------------------------------------------------------------


@unhurried
@given(_VALUES)
def test_unescape_json_returns_the_value_that_was_escaped(value: Any) -> None:
    """Keys are escaped too, and halves of a surrogate pair stay two characters."""
    text = escape_json(value)
    found = json.loads(text)
    assert unescape_json(found) == value
    assert not refused(text)
    assert not any(map(refused, strings(found)))


@unhurried
@given(_VALUES)
def test_sqlite_reads_all_strings_of_escaped_json(value: Any) -> None:
    r"""A `\u0000` would end a string there."""
    with closing(sqlite3.connect(":memory:")) as connection:
        [(valid, found)] = connection.execute(
            "SELECT json_valid(:j), (SELECT json_group_array(atom) FROM json_tree(:j) WHERE type = 'text')",
            {"j": escape_json(value)},
        )
    assert valid == 1
    values = [unescape(text) for text in json.loads(found)]
    assert values == _texts_of_values(value)


def _texts_of_values(value: Any) -> list[str]:
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return [text for entry in inner for text in _texts_of_values(entry)]
    return [value] if isinstance(value, str) else []


def test_json_that_needs_no_escape_is_written_as_it_is() -> None:
    """This holds also for a text that only has the letters of an escape."""
    assert escape_json({"a": "ü🎈"}) == '{"a":"ü🎈"}'
    assert escape_json({"a": "\\u0000 \\ud800"}) == r'{"a":"\\u0000 \\ud800"}'
    assert escape_json({"a\x00": ["\ud83c"]}) == '{"a\ufdd00000":["\ufdd0d83c"]}'


@dataclass
class Noted:
    """A dataclass with a text."""

    text: str


class Model:
    """A fake of a pydantic model."""

    def model_dump(self, *, mode: str) -> dict[str, str]:
        return {"text": "a\x00b"}


@pytest.mark.parametrize(
    "value",
    [Noted("a\x00b"), Model(), MappingProxyType({"text": "a\x00b"}), {"text": "a\x00b"}],
    ids=["dataclass", "pydantic", "mapping", "dict"],
)
def test_texts_inside_of_objects_are_escaped(value: Any) -> None:
    """Tool results and metadata may have such objects."""
    for inside in (value, [value], (value,), {"deeper": {"x": value}}):
        text = escape_json(inside)
        assert '{"text":"a\ufdd00000b"}' in text
        assert "\\u0000" not in text


def test_nan_and_infinity_are_written_as_null() -> None:
    """Postgres and the functions of SQLite refuse the words that Python writes for them."""
    text = escape_json([math.nan, math.inf, 2**80, "\x00"])
    assert ("NaN" in text, "Infinity" in text) == (False, False)
    assert json.loads(text) == [None, None, 2**80, "\ufdd00000"]


def test_deep_json_is_escaped_and_unescaped() -> None:
    """The value is nested 900 deep, near Python's limit of recursion."""
    value: Any = "a\x00b"
    for _ in range(900):
        value = [value]
    assert unescape_json(json.loads(escape_json(value))) == value
