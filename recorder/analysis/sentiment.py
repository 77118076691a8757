"""Sentiment of English texts, by the lexicon VADER."""

from __future__ import annotations

from typing import Any

from recorder.analysis.evaluation import Evaluation
from recorder.analysis.extra import load, require
from recorder.analysis.language import is_english
from recorder.analysis.texts import AnalyzedText

#: From here on a text is positive, and from its negative on it is negative: VADER's authors' limits.
LIMIT = 0.05
#: How much of a text is scored (characters): a longer one costs as much time as twenty messages.
MAX_SCORED = 10_000


class Sentiment:
    """Labels sentences and messages "positive", "negative" or "neutral", with a score from -1 to 1.

    Texts in other languages than English, and texts that are too short to tell, get no label. The score is VADER's
    "compound". Raises `MissingExtra` without the extra `nlp`.
    """

    name = "sentiment"
    #: The version of the lexicon and of the rules above: a new one makes new annotations.
    version = "vader-1.0"

    def __init__(self) -> None:
        require("vader", "py3langid", "sentencex")
        self._scores: Any = None

    def prepare(self) -> None:
        """Load the lexicon, in the place where texts are analyzed."""
        self._scores = load("vader").SentimentIntensityAnalyzer().polarity_scores
        is_english("Load the model.")

    def on_sentence(self, sentence: AnalyzedText) -> Evaluation | None:
        """The sentiment of one sentence."""
        return self.evaluate(sentence.text)

    def on_message(self, message: AnalyzedText) -> Evaluation | None:
        """The sentiment of a message."""
        return self.evaluate(message.text)

    def evaluate(self, text: str) -> Evaluation | None:
        """The sentiment of any text; None if it is not English."""
        if self._scores is None:
            self.prepare()
        if not is_english(text):
            return None
        score = float(self._scores(text[:MAX_SCORED])["compound"])
        label = "positive" if score >= LIMIT else "negative" if score <= -LIMIT else "neutral"
        return Evaluation(label, score, {"language": "en"})
