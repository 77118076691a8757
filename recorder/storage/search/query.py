"""A query: phrases that must all be in a message. Any text is a query; nothing in it is an operator of a database."""

from __future__ import annotations

import re
from dataclasses import dataclass

from recorder.errors import ConfigError
from recorder.storage.search.segmentation import MAX_WORD, canonical, index_words, is_dense

#: A longer query is refused (characters).
MAX_QUERY = 10_000
#: Further phrases are ignored.
_MOST_PHRASES = 64
#: So many words are looked for in the index; the texts that it finds are compared with the complete query.
_MOST_WORDS = 32
_PHRASE = re.compile(r'"([^"]*)"|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What a message must have to be found."""

    #: Each must be a part of the canonical form of one of its texts.
    phrases: tuple[str, ...]
    #: Each must be in its row of the index. Empty if the query has no word that an index can have: nothing is found.
    words: tuple[str, ...]


def parsed(text: str) -> SearchQuery:
    """The query of a text: words with spaces between them, and "phrases in quotes". All must be found.

    Raises `ConfigError` for a text of more than `MAX_QUERY` characters.
    """
    if len(text) > MAX_QUERY:
        raise ConfigError(f"The query has {len(text):,} characters; at most {MAX_QUERY:,} are searched for")
    phrases = dict.fromkeys(_phrase(quoted or plain) for quoted, plain in _PHRASE.findall(text))
    phrases.pop("", None)
    chosen = tuple(phrases)[:_MOST_PHRASES]
    return SearchQuery(chosen, _index_words(chosen))


def _phrase(text: str) -> str:
    """The canonical form. A word has its spaces: it is found as a whole. Scripts without spaces have none at the
    ends."""
    shown = canonical(text)
    words = shown.split()
    if not words:
        return ""
    start = 1 if is_dense(words[0]) else 0
    return shown[start : -1 if is_dense(words[-1]) else None]


def _index_words(phrases: tuple[str, ...]) -> tuple[str, ...]:
    """The words for the index: the longest ones, because they are rare."""
    found: dict[str, None] = {}
    for word in dict.fromkeys(word for phrase in phrases for word in phrase.split()):
        if not is_dense(word):
            found |= {word: None} if len(word) <= MAX_WORD else {}
        else:  # a pair says more than its characters
            pairs = [each for each in index_words(word) if len(each) > 1]
            found |= dict.fromkeys(pairs or [word])
    return tuple(sorted(found, key=len, reverse=True)[:_MOST_WORDS])
