"""Text that a terminal shows and does not obey."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.printable import printable, printable_json, printable_line

#: What a terminal obeys, or what makes it show something else than is there.
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
def test_a_trick_is_written_out(trick: str) -> None:
    """In plain text, on one line, and in JSON, which is of the same value."""
    assert _is_plain(printable(trick))
    assert _is_plain(printable_line(trick))
    written = printable_json(json.dumps([trick], ensure_ascii=False))
    assert _is_plain(written)
    assert json.loads(written) == [trick]


def test_lines_stay_lines_unless_one_is_wanted() -> None:
    """A line end is no trick, but in a log it is another line."""
    assert (printable("a\tb\nc"), printable_line("a\tb\nc")) == ("a\tb\nc", r"a\tb\nc")


@given(st.text())
def test_whatever_is_printable_stays(text: str) -> None:
    """Written out once, nothing is written out again, and letters are left alone."""
    shown = printable(text)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def _is_plain(text: str) -> bool:
    return all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text)
