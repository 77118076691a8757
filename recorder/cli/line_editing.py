"""Messages that are typed or pasted in a terminal, edited by the line editor that Python has.

GNU readline takes a pasted text of several lines as one line, if the terminal marks it ("bracketed paste"). Other
editors read a paste line by line; then all lines that have arrived at once are one message.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterable

from recorder.core.printable import printable_line


def prepare_editing(earlier: Iterable[str]) -> None:
    """Let the arrow keys recall the earlier messages, and take a pasted text as one message."""
    try:
        import readline
    except ImportError:  # Python may be built without readline
        return
    # Python switches it off, because it writes to the terminal (https://bugs.python.org/issue42819).
    readline.parse_and_bind("set enable-bracketed-paste on")
    for text in earlier:
        if printable_line(text) == text:
            readline.add_history(text)


def typed_message(prompt: str) -> str:
    """The next message; raises `EOFError` after Ctrl-D, `KeyboardInterrupt` after Ctrl-C."""
    lines = [input(prompt)]
    while not _marks_pastes() and _is_more_there():
        try:
            lines.append(input())
        except EOFError:
            break
    return "\n".join(lines).rstrip("\n")


def _marks_pastes() -> bool:
    """Whether the editor reads a pasted text as one line."""
    readline = sys.modules.get("readline")
    return readline is not None and "libedit" not in (readline.__doc__ or "")


def _is_more_there() -> bool:
    """Whether the terminal has another line already."""
    return bool(select.select([sys.stdin], [], [], 0)[0])
