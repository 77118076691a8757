"""Whether a text is English.

`py3langid` decides; it has its model with it. It is unsure about short texts, so there one of the words that only
English has must confirm it. A text that stays unsure has no language: "OK", "Super!", a number, an emoji.
Measured on 3,168 short texts of 94 other languages: none was taken for English (docs/decisions/0053).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from recorder.analysis.extra import load

#: The least probability at which the library alone decides.
SURE = 0.5
#: How much of a text is looked at (characters).
_LOOKED_AT = 1_000
#: The least share of the words of a short text that must be among `_ENGLISH`.
_SHARE = 0.2
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
#: Frequent words that are no words of another language in Latin script. So "is", "was", "not" and "so" are missing.
_WORDS = """
the this that these those with and you your you're you've i'm i've i'd i'll it's that's what's there's don't
isn't can't doesn't didn't won't wasn't aren't couldn't wouldn't shouldn't haven't let's what which why how
when where who because would could should very really there their they them been were are my our from about
into just please thanks thank than then its some any much does did can if we've they're he's she's
"""
_ENGLISH = frozenset(_WORDS.split())


def is_english(text: str) -> bool:
    """Whether the text is English beyond doubt. Raises `MissingExtra`."""
    text = text[:_LOOKED_AT]
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    if not words:
        return False
    language, probability = _identifier().classify(text)
    if language != "en":
        return False
    return bool(probability >= SURE or sum(word in _ENGLISH for word in words) / len(words) >= _SHARE)


@cache
def _identifier() -> Any:
    library = load("py3langid.langid")
    return library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True)
