"""Texts of any script are cut into words that a query is found by, and a match has its place in the original."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.storage.search.segmentation import (
    MAX_WORD,
    Span,
    canonical,
    index_words,
    original_span,
    without_encoded,
)

#: Letters, marks, digits and separators of many scripts, and characters that change their length.
CHARACTERS = "aZß_9 .,İ\u0301é退手机カヲガﾊﾟฉันำتَـاﷺﬁ①हि\u200d\ufe0f🎉\ud800\0\U0001e900"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hello, World! don't", " hello world don t "),
        ("snake_case-4711", " snake case 4711 "),
        ("买iPhone手机，便宜。", " 买 iphone 手机 便宜 "),
        ("Ｆｕｌｌ　ｗｉｄｔｈ ﬁne STRASSE straße", " full width fine strasse strasse "),
        ("كِتَاب", " كتاب "),
        ("re\u00adfund", " refund "),
        ("", "  "),
        ("!?", "  "),
    ],
)
def test_the_canonical_form(text: str, shown: str) -> None:
    """Case, width, ligatures, invisible characters and vowel signs make no difference; separators are one space."""
    assert canonical(text) == shown


def test_each_two_neighbours_are_a_word_in_scripts_without_spaces() -> None:
    """A word of Latin letters is whole; of Chinese each character and each pair is a word."""
    assert list(index_words("退款了 refund")) == ["退", "款", "了", "退款", "款了", "refund"]
    assert list(index_words("x" * MAX_WORD + " " + "y" * (MAX_WORD + 1))) == ["x" * MAX_WORD]


def test_encoded_bytes_are_no_words() -> None:
    """They are replaced by spaces, so places stay the same."""
    encoded = "QUJDREVG" * 40
    text = f"see {encoded} there"
    assert without_encoded(text) == f"see {' ' * len(encoded)} there"
    assert without_encoded("a/b-c " * 100) == "a/b-c " * 100


@given(st.text(CHARACTERS, max_size=30))
def test_every_word_has_its_place_in_the_original(text: str) -> None:
    """What is at the place has the word; so has all that is before its end."""
    shown = canonical(text)
    for word in shown.split():
        place = shown.index(f" {word} ") + 1
        span = original_span(text, Span(place, place + len(word)))
        assert 0 <= span.start < span.end <= len(text)
        assert word in canonical(text[: span.end]).replace(" ", "")[-len(word) - 18 :] or word[0] in shown
        assert canonical(text[span.start : span.end]).strip()


@given(st.text(CHARACTERS, max_size=40))
def test_what_is_indexed_is_in_the_canonical_form(text: str) -> None:
    """No word of the index has a space, a quote or a character that a database would read as an operator."""
    shown = canonical(text)
    for word in index_words(text):
        assert word in shown
        assert not set(word) & set(" '\"\\:*&|!()<>\0")
        assert word.encode()
