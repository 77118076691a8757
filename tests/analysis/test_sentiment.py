"""Sentiment is for English. Other languages and texts that are too short to tell get no label."""

from __future__ import annotations

import pytest

from recorder.analysis.sentiment import Sentiment
from recorder.errors import MissingExtra


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this library, thank you!", "positive"),
        ("This is terrible.", "negative"),
        ("What a mess, and the tests are failing.", "negative"),
        ("The file is on the second page of the list.", "neutral"),
        ("It works and I'm so happy with that 😀🎉", "positive"),
    ],
)
def test_english_gets_a_label(text: str, label: str) -> None:
    """The score has the sign of the label."""
    found = Sentiment().evaluate(text)
    assert found is not None
    assert found.label == label
    assert found.score is not None
    assert (found.score > 0, found.score < 0) == (label == "positive", label == "negative")


@pytest.mark.parametrize(
    "text",
    [
        "Das ist schrecklich.", "C'est une catastrophe.", "Me encanta esto, gracias.", "Het is een fantastische dag",
        "Die Hand war in der Wand", "Mon ami est malade mais content", "To jest okropne", "Bu harika",
        "我喜欢这个，谢谢！", "これは最高です。", "ฉันชอบสิ่งนี้", "أحب هذا كثيرا", "मुझे यह पसंद है।", "Это ужасно.",
        "", " ", "OK", "no", "Super!", "42", "😀", "fatal", "gift", "...",
    ],
)  # fmt: skip
def test_other_languages_and_short_texts_get_none(text: str) -> None:
    """None is not "neutral": nothing is known."""
    assert Sentiment().evaluate(text) is None


def test_a_missing_library_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes when the analyzer is made."""
    monkeypatch.setattr("recorder.analysis.extra.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install 'sentencex"):
        Sentiment()
