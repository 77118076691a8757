"""The song that a provider without a script answers with, and a tokenizer that cuts text into pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle, islice

VERSES = (
    "Verse 1\nThere's a whisper in the glass tonight,\nA thousand stars that rise in flight,\n"
    "No sugar, no shadow, just crystal and sky,\nA silver parade of bubbles going by.\n\n",
    "Chorus\nOh, sparkling water, dance for me,\nA little bit of thunder from a quiet sea,\n"
    "You tickle my nose and you brighten my day,\nSparkling water, fizz my blues away!\n\n",
    "Verse 2\nWith a ribbon of lemon and a leaf of mint,\nYou catch the sun and you give me a glint,\n"
    "From the mountain's heart where the cold springs start,\nEvery sip is effervescent art.\n\n",
    "Outro\nSo here's to the fizz, to the pop and the gleam,\nA tall, cold glass of a champagne dream.\n\n",
)

#: Splits text into words, numbers, punctuation and spaces, as the published patterns of byte-pair tokenizers do.
_PIECE = re.compile(
    r"'(?:[sdmt]|ll|ve|re)\b|[^\r\n\w]?[^\W\d_]+|\d{1,3}| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+|."
)
#: A longer word (characters) is split into several tokens, as tokenizers do with rare words.
_LONGEST_WORD = 9


def pieces_of(text: str) -> list[str]:
    """Cut `text` into pieces of about a token each; joined they are `text` again."""
    return [piece for word in _PIECE.findall(text) for piece in _split(word)]


def _split(word: str) -> Iterator[str]:
    """Cut a long word into two or more pieces, the longest first: " effervescent" -> " efferve", "scent"."""
    size = len(word) if len(word) <= _LONGEST_WORD else (len(word) + 2) // 2
    for start in range(0, len(word), size):
        yield word[start : start + size]


def song(choice: int = 0) -> str:
    """The song. Each `choice` begins with another verse, so that the choices of one request differ."""
    first = choice % len(VERSES)
    return "".join(VERSES[first:] + VERSES[:first]).rstrip()


def song_pieces(tokens: int | None = None, choice: int = 0) -> list[str]:
    """The song as tokens: once, or repeated until there are `tokens` of them."""
    pieces = pieces_of(song(choice))
    if tokens is None:
        return pieces
    return list(islice(cycle([*pieces, "\n\n"]), tokens))
