"""Escapes control characters, so that a terminal shows recorded text and does not execute it.

A control character or an escape sequence in recorded text can move the cursor or set the window's title. An override of
the direction shows words in another order than the stored one. Characters that only join letters, or choose between
their forms, are part of ordinary text: of joined emoji, of flags, of Persian and of Hindi.
"""

from __future__ import annotations

import re

#: C0 and C1 control characters except tab and newline, DEL, Unicode's line separators, embeddings, overrides and
#: isolates of a direction, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_OR_BREAK = re.compile(f"[\t\n]|{_UNSAFE.pattern}")


def printable(text: str) -> str:
    r"""The text with control characters escaped (`\x1b`). Tabs and newlines stay."""
    return _UNSAFE.sub(_written_out, text)


def printable_line(text: str) -> str:
    r"""The text on one line: tabs and newlines are escaped as well."""
    return _UNSAFE_OR_BREAK.sub(_written_out, text)


def printable_json(text: str) -> str:
    r"""JSON text of the same value, with control characters as JSON escapes (`\u001b`)."""
    return _UNSAFE.sub(lambda found: "".join(map("\\u{:04x}".format, _units(found[0]))), text)


def _written_out(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _units(letter: str) -> list[int]:
    """The UTF-16 code units of a character, which JSON escapes are made of."""
    data = letter.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[place : place + 2]) for place in range(0, len(data), 2)]
