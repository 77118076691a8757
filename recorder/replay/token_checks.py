"""Checks the tokens of a stored row, `[at_us, text]` or `[at_us, text, kind, idx]`: any program may have written it."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import Any

from recorder.storage.frame_block import MAX_OFFSET

_at, _text, _rest = itemgetter(0), itemgetter(1), itemgetter(slice(2, None))


def checked(items: Any) -> list[Any]:
    """The same items. Raises `ValueError`, `TypeError` or `LookupError` if they are not tokens.

    A row has some thousands of tokens, so each check runs over all of them in C and not in a Python loop.
    """
    if type(items) is not list or not set(map(type, items)) <= {list}:
        raise ValueError("it is not a list of tokens")
    sizes = set(map(len, items))
    if sizes == {2}:  # plain text, as in most runs
        times, texts = zip(*items, strict=True)
    elif sizes <= {2, 3, 4}:
        times = tuple(map(_at, items))
        texts = (*map(_text, items), *chain.from_iterable(map(_rest, items)))
    else:
        raise ValueError("it is not a list of tokens")
    if not set(map(type, times)) <= {int} or not set(map(type, texts)) <= {str}:
        raise ValueError("it holds an item that is not a token")
    if items and not -MAX_OFFSET < min(times) <= max(times) < MAX_OFFSET:
        raise ValueError("it holds an offset that is out of range")
    return items
