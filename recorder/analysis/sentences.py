"""Cuts a text that grows into sentences, each as soon as its end is certain.

The rules of where sentences end are those of `sentencex` (Wikimedia). It gets whole texts, so this module decides when
to ask it: after an end mark, as soon as the next word is complete. What it finds depends on the text alone, not on the
pieces in which the text comes: a stored text has the same sentences as the stream that it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, takewhile
from typing import Any, NamedTuple

from recorder.analysis.extra import load

#: The longest sentence (characters). A longer one is cut, at a space if it has one.
MAX_SENTENCE = 2_000
#: How many characters after its end mark a sentence with an open quotation or bracket waits for the closing one.
_OPEN_FOR = 300
#: From this length on (characters), the segmenter is asked about a sentence only after it grew by an eighth. So the
#: time grows with the length of the text, whatever is in it.
_OFTEN = 200
#: Rules about abbreviations are those of English. End marks are known in all scripts.
_LANGUAGE = "en"

# The places where the segmenter is asked: after an end mark, closing marks and spaces, and then the first character of
# a script without spaces, or the next word. All repetitions are bounded or possessive, so the search is linear.
_MARKS = ".!?।॥؟۔…։።៕။\n"
_WIDE = "。！？｡．"
_ASK = re.compile(
    rf"(?<![{_WIDE}])[{_WIDE}]++[^\w\s]{{0,8}}+\s{{0,8}}+[\w#*\-]"
    rf"|(?<![{_MARKS}])[{_MARKS}]++[^\w\s]{{0,8}}+\s{{0,8}}+(?:\w{{1,23}}(?=\W)|\w{{24}})"
)
#: The number of an item in a list, which is no sentence.
_ITEM = re.compile(r"\s*[(\[]?\w{1,3}[.)\]]\s*")
_PAIRS = {"(": ")", "[": "]", "“": "”", "«": "»", "「": "」", "『": "』", "（": "）", "《": "》"}
_BRACKETS = re.compile("[" + re.escape("".join(chain(_PAIRS, _PAIRS.values(), '"'))) + "]")


class Sentence(NamedTuple):
    """One sentence without the spaces around it."""

    text: str
    #: Its first character in the text, and the one after its last. Counted in code points.
    start: int
    end: int


class SentenceCutter:
    """Cuts one text. Holds no more of it than the sentence that has not ended. Raises `MissingExtra`."""

    def __init__(self) -> None:
        self._boundaries: Any = load("sentencex").get_sentence_boundaries
        #: The text after the last sentence that was cut, and where it begins in the whole text.
        self._rest = ""
        self._begin = 0
        #: Where the next search in the rest starts.
        self._searched = 0

    def feed(self, text: str) -> list[Sentence]:
        """Add text. Returns the sentences whose end is certain now."""
        return [
            each
            for start in range(0, len(text), MAX_SENTENCE)
            for each in self._feed(text[start : start + MAX_SENTENCE])
        ]

    def finish(self) -> list[Sentence]:
        """The text is complete. Returns its last sentences."""
        return [*self._cut_at(self._ends(self._rest)), *self._cut_at([len(self._rest)])]

    def _feed(self, text: str) -> Iterator[Sentence]:
        self._rest += text
        while True:
            found = _ASK.search(self._rest, self._searched, MAX_SENTENCE)
            if found is not None:
                asked_at = found.end()
                self._searched = asked_at + asked_at // 8 if asked_at > _OFTEN else found.start() + 1
                yield from self._cut_at(self._certain(asked_at))
            elif len(self._rest) >= MAX_SENTENCE:
                yield from self._cut_at([self._longest()])
            else:
                return

    def _certain(self, length: int) -> list[int]:
        """The ends of sentences in the first characters of the rest that no later text can move."""
        head = self._rest[:length]
        ends = self._ends(head)
        if ends and length - ends[0] > _OPEN_FOR:
            return ends
        return list(takewhile(lambda end: not _is_open(head[:end]), ends[:1]))

    def _ends(self, text: str) -> list[int]:
        """Where sentences end inside of a text, its own end left out."""
        try:
            found = self._boundaries(_LANGUAGE, text)
        except UnicodeEncodeError:  # a lone surrogate; its place counts as one character in both texts
            found = self._boundaries(_LANGUAGE, text.encode("utf-8", "replace").decode())
        return [
            each["end_index"]
            for each in found
            if each["end_index"] < len(text)
            and not _ITEM.fullmatch(text, each["start_index"], each["end_index"])
        ]

    def _longest(self) -> int:
        """The end of a part of a sentence that is too long."""
        space = self._rest.rfind(" ", MAX_SENTENCE // 2, MAX_SENTENCE)
        return space + 1 if space > 0 else MAX_SENTENCE

    def _cut_at(self, ends: list[int]) -> Iterator[Sentence]:
        at = 0
        for end in ends:
            part = self._rest[at:end]
            if text := part.strip():
                start = self._begin + at + len(part) - len(part.lstrip())
                yield Sentence(text, start, start + len(text))
            at = end
        self._rest, self._begin = self._rest[at:], self._begin + at
        self._searched = max(0, self._searched - at)


def sentences_in(text: str) -> list[Sentence]:
    """The sentences of a complete text: the same ones as of its stream."""
    cutter = SentenceCutter()
    return [*cutter.feed(text), *cutter.finish()]


def _is_open(text: str) -> bool:
    """Whether a quotation or a bracket is open at the end of the text."""
    expected: list[str] = []
    for mark in _BRACKETS.findall(text):
        if expected and mark == expected[-1]:
            expected.pop()
        elif mark == '"' or mark in _PAIRS:
            expected.append(_PAIRS.get(mark, mark))
    return bool(expected)
