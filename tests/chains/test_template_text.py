"""Templates are read as fields of names; nothing in them reaches an object."""

from __future__ import annotations

from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.chains.template_text import TemplateText
from recorder.errors import ConfigError


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("", {}, ""),
        ("no fields", {}, "no fields"),
        ("{a} and {b} and {a}", {"a": 1, "b": "two"}, "1 and two and 1"),
        ("{{a}} {a}", {"a": "x"}, "{a} x"),
        ("{a!r:>5}|{b:.2f}", {"a": "x", "b": 1.005}, "  'x'|1.00"),
        ("{a}", {"a": "{b} {a.__class__}"}, "{b} {a.__class__}"),
        ("{größe}", {"größe": 3}, "3"),
    ],
)
def test_a_template_is_filled(template: str, values: dict[str, Any], text: str) -> None:
    """Fields get their values, double braces are braces, and braces in a value are text."""
    assert TemplateText(template).fill(values) == text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{a.__class__}", "attributes, indexes and numbers are not allowed"),
        ("{a[0]}", "attributes, indexes and numbers are not allowed"),
        ("{a.b[c].d}", "attributes, indexes and numbers are not allowed"),
        ("{0}", "attributes, indexes and numbers are not allowed"),
        ("{}", "attributes, indexes and numbers are not allowed"),
        ("{a b}", "attributes, indexes and numbers are not allowed"),
        ("{a:{b}}", "a field within the format"),
        ("{a:>1000000000}", "too long"),
        ("{a!x}", "conversion"),
        ("{a", "expected '}'"),
        ("a}", "Single '}'"),
        ("{", "Single '{'"),
        ("{a!}", "not valid"),
    ],
)
def test_a_template_that_is_no_text_with_names_is_refused(template: str, why: str) -> None:
    """The error has the reason, and says how braces are written."""
    with pytest.raises(ConfigError, match=r"\{\{ and \}\}") as caught:
        TemplateText(template)
    assert why in str(caught.value)


def test_a_template_is_a_text() -> None:
    """Another type is refused by its name."""
    with pytest.raises(ConfigError, match="not int"):
        TemplateText(3)  # type: ignore[arg-type]


def test_each_missing_variable_is_named() -> None:
    """The error names what is missing and what is there, and how the braces would be text."""
    with pytest.raises(ConfigError) as caught:
        TemplateText("{a} {b} {c}").fill({"b": 1, "d": 2})
    assert str(caught.value) == (
        "The prompt lacks a value for 'a', 'c'; it got 'b', 'd'. Pass a=..., or write {{a}} for the text {a}"
    )


def test_a_value_that_does_not_fit_its_format_is_an_error() -> None:
    """The error names the variable and the format."""
    with pytest.raises(ConfigError, match=r"'a' does not fit the format '\.2f'"):
        TemplateText("{a:.2f}").fill({"a": "text"})


@given(st.text(alphabet="{}ab.[]!:r0 ", max_size=12))
def test_what_is_accepted_is_formatted_as_python_formats_it(template: str) -> None:
    """A template is refused, or its text is that of `str.format`."""
    values = {"a": "X", "b": "Y", "ab": "Z", "ba": "", "r": "R"}
    try:
        text = TemplateText(template)
        found = text.fill(values)
    except ConfigError:
        return
    assert found == Formatter().vformat(template, (), values)
