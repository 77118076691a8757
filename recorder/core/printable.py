"""Text that a terminal shows and does not obey: what was recorded may say anything.

A control, an escape sequence or a direction mark in a recorded text moves the cursor, sets the window's title, or shows
words in another order than they are stored in.
"""

from __future__ import annotations

import re

#: C0 and C1 controls but tab and newline, DEL, separators of lines that no file has, marks that reorder or hide text,
#: and halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_UNSAFE_OR_BREAK = re.compile(f"[\t\n]|{_UNSAFE.pattern}")


def printable(text: str) -> str:
    r"""The text with its controls written out (`\x1b`); tabs and newlines stay."""
    return _UNSAFE.sub(_written_out, text)


def printable_line(text: str) -> str:
    r"""The text on one line, tabs and newlines written out too."""
    return _UNSAFE_OR_BREAK.sub(_written_out, text)


def printable_json(text: str) -> str:
    r"""JSON text of the same value, with controls as JSON's own escapes (`\u001b`)."""
    return _UNSAFE.sub(lambda found: "".join(map("\\u{:04x}".format, _units(found[0]))), text)


def _written_out(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _units(letter: str) -> list[int]:
    """The letter in UTF-16, whose units are what JSON's escapes name."""
    data = letter.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[place : place + 2]) for place in range(0, len(data), 2)]
