"""Recorded text is escaped, so that a terminal shows it and does not obey it."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.printable import printable, printable_json, printable_line

#: Texts that a terminal obeys, or that make it show another text.
TRICKS = {
    "title": "\x1b]0;owned\x07",
    "colour": "\x1b[31m",
    "c1": "\x9b31m",
    "delete": "\x7f",
    "direction": "\u202egpj.exe\u2066\u061c",
    "lines": "\u2028\u2029",
    "half": "\ud800",
    "tags": "\U000e0041",
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_control_characters_are_escaped(trick: str) -> None:
    """This holds for text, for one line and for JSON, whose value does not change."""
    assert _is_plain(printable(trick))
    assert _is_plain(printable_line(trick))
    written = printable_json(json.dumps([trick], ensure_ascii=False))
    assert _is_plain(written)
    assert json.loads(written) == [trick]


def test_only_printable_line_escapes_line_ends() -> None:
    """In a log, a line end would begin another record."""
    assert (printable("a\tb\nc"), printable_line("a\tb\nc")) == ("a\tb\nc", r"a\tb\nc")


@given(st.text())
def test_printable_text_is_not_changed(text: str) -> None:
    """Escaping twice is the same as escaping once."""
    shown = printable(text)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def _is_plain(text: str) -> bool:
    return all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text)
