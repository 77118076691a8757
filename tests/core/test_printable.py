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
    "overrides": "\u202egpj.exe\u202d\u202c",
    "embeddings": "\u202a\u202b",
    "isolates": "\u2066\u2067\u2068\u2069",
    "lines": "\u2028\u2029",
    "half": "\ud800",
}


#: Ordinary texts with characters that join or separate others.
TEXTS = {
    "joined emoji": "👨\u200d👩\u200d👧 ❤\ufe0f 👍🏽",
    "a flag of tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "Persian": "می\u200cخواهم",
    "Hindi": "क्\u200dष नमस्ते",
    "Thai with places to break": "สวัสดี\u200bครับ",
    "Hebrew and a mark": "שלום\u200f!",
    "combining marks": "e\u0301 Z\u0351\u036b",
    "a word joiner": "a\u2060b\ufeff",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    """Whatever its script is, also in JSON and in the log."""
    written = json.dumps(text, ensure_ascii=False)
    assert [printable(text), printable_line(text), printable_json(written)] == [text, text, written]


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
    """Return whether the text has neither controls nor characters that set its direction."""
    return not any(
        unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(letter)
        in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        for letter in text
    )
