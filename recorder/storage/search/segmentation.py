"""Cuts texts and queries into words in the same way, so that both databases find the same.

A text is normalized (NFKC, case folding). In scripts that put spaces between words (Latin, Greek, Cyrillic, Armenian,
Georgian and their like) a word is a sequence of letters, digits and marks. Other scripts put no spaces between words,
or write small words together with large ones: Chinese, Japanese, Korean, Thai, Arabic and others. Of these, each
character and each two neighbours are a word, so that any part of a text is found.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import cache
from itertools import chain
from operator import add
from typing import NamedTuple

#: Longer words are not indexed: they are keys, hashes or encoded bytes.
MAX_WORD = 64
#: Encoded bytes (base64) are replaced by spaces if they are at least as long as this.
_ENCODED_FROM = 200
_ENCODED = re.compile(rf"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{{{_ENCODED_FROM},}}")
#: Characters that nobody sees, that only change how others look, or that are rarely written: the vowel signs of Hebrew
#: and Arabic. They are left out.
_IGNORED = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670"
    "\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
#: Scripts with spaces between words, as ranges of a character class. Everything else is dense.
_SPACED = (
    "0-9A-Za-z\u00aa-\u058f\u10a0-\u10ff\u13a0-\u13ff\u1c80-\u1cbf\u1d00-\u1fff\u2c00-\u2d2f\ua640-\ua69f"
    "\ua720-\ua7ff\uab30-\uabbf\U00010400-\U0001044f"
)
_DENSE = re.compile(f"[^{_SPACED} ]")
_EDGES = re.compile(f"(?<=[{_SPACED}])(?=[^{_SPACED} ])|(?<=[^{_SPACED} ])(?=[{_SPACED}])")
_ASCII_WORDS = re.compile("[0-9a-z]+")
_RUNS = re.compile(r"\w+")
#: Where combining marks are. Texts without them are cut in a tenth of the time.
_MAY_HAVE_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u1dff\u20d0-\u20ff\u2cef-\u2cf1\u2d7f\u2de0-\u2dff\u302a-\u302f\u3099\u309a"
    "\ua66f-\uabff\ufb1e\ufe20-\ufe2f\U00010a00-\U00011fff\U0001e000-\U0001efff]"
)


class Span(NamedTuple):
    """A part of a text: offsets in characters (code points), from 0; `end` is behind it."""

    start: int
    end: int


def normalized(text: str) -> str:
    """The text as it is compared: without differences of case and of compatible characters."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", _IGNORED.sub("", text)).casefold().replace("_", " ")


def without_encoded(text: str) -> str:
    """The text with spaces in place of encoded bytes; it has the same length."""
    if len(text) < _ENCODED_FROM or max(map(len, text.split()), default=0) < _ENCODED_FROM:
        return text
    return _ENCODED.sub(lambda found: " " * len(found[0]), text)


def canonical(text: str) -> str:
    """A form in which a phrase is found as a substring.

    Each separator is one space, and each word of a script with spaces has a space on both sides.
    """
    plain = normalized(text)
    if plain.isascii():
        return f" {' '.join(_ASCII_WORDS.findall(plain))} "
    shown = " ".join(_runs(plain).findall(plain))
    return f" {_EDGES.sub(' ', shown) if _DENSE.search(shown) else shown} "


def is_dense(word: str) -> bool:
    """Whether a part of a canonical form between two spaces has no spaces between its words."""
    return _DENSE.match(word) is not None


def index_words(text: str) -> dict[str, None]:
    """The words of a text for the index, each once, in their order."""
    if text.isascii():
        return dict.fromkeys(word for word in _ASCII_WORDS.findall(text.lower()) if len(word) <= MAX_WORD)
    found: dict[str, None] = {}
    for part in dict.fromkeys(canonical(text).split()):
        if is_dense(part):
            found |= dict.fromkeys(part)
            found |= dict.fromkeys(map(add, part, part[1:]))
        elif len(part) <= MAX_WORD:
            found[part] = None
    return found


def original_span(text: str, found: Span) -> Span:
    """The part of a text that a part of its canonical form comes from. It has one character at least."""
    plain = normalized(text)
    runs = (_ASCII_WORDS if plain.isascii() else _runs(plain)).finditer(plain)
    places = list(chain.from_iterable(range(*run.span()) for run in runs))
    shown = canonical(text)
    first = found.start - shown.count(" ", 0, found.start)
    last = found.end - shown.count(" ", 0, found.end) - 1
    start, end = places[first], places[max(first, last)] + 1
    if text.isascii():
        return Span(start, end)
    begin = _characters_within(text, start)
    return Span(begin, max(begin + 1, _characters_within(text, end)))


def _characters_within(text: str, length: int) -> int:
    """How many characters of a text become at most so many when it is normalized.

    The normalized form of a beginning never becomes shorter when a character is added.
    """
    return bisect_right(range(len(text) + 1), length, key=lambda count: len(normalized(text[:count]))) - 1


def _runs(plain: str) -> re.Pattern[str]:
    """What finds the sequences of letters, digits and marks in a text."""
    return _runs_with_marks() if _MAY_HAVE_MARKS.search(plain) else _RUNS


@cache
def _runs_with_marks() -> re.Pattern[str]:
    """Built once: it looks at all marks of Unicode's first plane. In the others a few ranges are near enough."""
    marks = "".join(chr(code) for code in range(0x300, 0xFE30) if unicodedata.category(chr(code))[0] == "M")
    return re.compile(f"[\\w{marks}\U00010a00-\U00011fff\U0001e000-\U0001efff]+")
