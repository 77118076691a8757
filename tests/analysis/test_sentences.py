"""Sentences are cut as soon as their end is certain, in many scripts, and the same ones however the text comes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.analysis.sentences import MAX_SENTENCE, SentenceCutter, sentences_in

TEXTS = {
    "abbreviations": ["Dr. Smith of the U.S. office paid $3.50!", "Really?", "Yes... maybe."],
    "quotation": ['He said "Stop. Now." and left.', "She went."],
    "list": ["1. One", "2. Two", "3. Three is.", "Four"],
    "emoji": ["Great 😀!", "I love it 👍🏽.", "So happy🎉🎉 again"],
    "chinese": ["你好世界。", "今天天气很好！", "你好吗？"],
    "japanese": ["今日は良い天気です。", "明日は雨でしょう。"],
    "thai": ["สวัสดีครับ วันนี้อากาศดี"],
    "arabic": ["مرحبا بالعالم.", "كيف حالك؟", "أنا بخير."],
    "hindi": ["नमस्ते दुनिया।", "आप कैसे हैं?", "मैं ठीक हूँ।"],
    "lone surrogate": ["a\ud800b is odd.", "Next one."],
}
SEPARATORS = {"chinese": "", "japanese": "", "list": "\n"}


@pytest.mark.parametrize("name", TEXTS)
def test_sentences_of_many_scripts(name: str) -> None:
    """Each sentence has its place in the text, counted in characters."""
    separator = SEPARATORS.get(name, " ")
    text = separator.join(TEXTS[name]) if name != "list" else "1. One\n2. Two\n3. Three is. Four"
    found = sentences_in(text)
    assert [each.text for each in found] == TEXTS[name]
    assert [text[each.start : each.end] for each in found] == TEXTS[name]


def cut(text: str, places: list[int]) -> list[str]:
    """Return the text in pieces."""
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(ends)]


@given(
    st.lists(
        st.sampled_from([*"abc .!?\n\"'()[]。？「」1…", "Dr. ", "e.g. ", " The ", "你好", "😀", "\ud800"])
    ),
    st.lists(st.integers(0, 400)),
)
def test_the_pieces_make_no_difference(parts: list[str], places: list[int]) -> None:
    """A stream has the same sentences as the stored text, however it is cut into tokens."""
    text = "".join(parts)
    cutter = SentenceCutter()
    streamed = [each for piece in cut(text, places) for each in cutter.feed(piece)]
    assert [*streamed, *cutter.finish()] == sentences_in(text)
    found = sentences_in(text)
    assert all(text[each.start : each.end] == each.text for each in found)
    assert "".join(each.text for each in found).replace(" ", "").replace("\n", "") == text.replace(
        " ", ""
    ).replace("\n", "")


def test_a_sentence_comes_with_the_next_word_and_not_before() -> None:
    """After an end mark the next word decides; an open quotation must be closed."""
    cutter = SentenceCutter()
    assert cutter.feed("It costs 3.") == []
    assert cutter.feed("50 dollars. ") == []
    assert [each.text for each in cutter.feed("That is fine")] == ["It costs 3.50 dollars."]
    assert cutter.feed('. He said "No. Never. ') != []
    assert cutter.feed("Not at all") == []
    assert [each.text for each in cutter.feed('." Then he left')] == ['He said "No. Never. Not at all."']


@pytest.mark.parametrize(
    "unit", ["a", "word ", ". a ", "..[111 ", '"', "(. a ", "e.g. ", "1. ", "你好世界。", ".\n"]
)
def test_a_text_without_end_is_bounded(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cutter holds two sentences at most, and the segmenter reads a hundredfold of the text at most."""
    text = unit * (100_000 // len(unit))
    cutter = SentenceCutter()
    read: list[int] = []
    boundaries = cutter._boundaries

    def counted(language: str, part: str) -> Any:
        read.append(len(part))
        return boundaries(language, part)

    monkeypatch.setattr(cutter, "_boundaries", counted)
    held = 0
    for start in range(0, len(text), 1_000):
        cutter.feed(text[start : start + 1_000])
        held = max(held, len(cutter._rest))
    found = cutter.finish()
    assert all(len(each.text) <= MAX_SENTENCE for each in found)
    assert held <= 2 * MAX_SENTENCE
    assert sum(read) <= 100 * len(text)


def test_an_empty_text_has_no_sentence() -> None:
    """Neither has one of spaces."""
    assert sentences_in("") == sentences_in(" \n ") == []
