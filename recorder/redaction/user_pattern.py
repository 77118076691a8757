"""A pattern of the user. It is run by the library `regex`, which says whether more text could make a match.

That library also ends a search after a time, so that a pattern that backtracks without end costs a run a moment, and
no more.
"""

from __future__ import annotations

import re
from typing import Any

from recorder.errors import ConfigError

#: Seconds of computing for one search.
TIMEOUT = 0.25
#: A pattern that took too long so often is not run any more: all texts are withheld at once.
MOST_TIMEOUTS = 3
#: Flags of `re` that `regex` has, too.
_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.VERBOSE | re.ASCII
#: Never matches. It demands two more characters, so that a match at the very end of a text counts as undecided.
_UNDECIDED = r"(?:%s)(?s:..)(?!)"


class UserPattern:
    """A pattern of the user, with the methods of `ReadyMade`. A search that takes too long raises `TimeoutError`."""

    name = "pattern"

    def __init__(self, pattern: re.Pattern[str]) -> None:
        """Raises `ConfigError` for a pattern of bytes, one that matches no characters, or one of another syntax."""
        if not isinstance(pattern.pattern, str):
            raise ConfigError(f"redact has a pattern of bytes, {pattern.pattern!r:.60}; pass one of a str")
        if pattern.search("") is not None:
            raise ConfigError(
                f"redact has {pattern.pattern!r:.60}, which matches the empty text; write + in place of *, so that a "
                "match has at least one character"
            )
        flags = pattern.flags & _FLAGS
        self._timeouts = 0
        self._pattern = _compiled(pattern.pattern, flags)
        self._undecided = _compiled(_in_group(pattern.pattern, flags), flags)

    def find(self, text: str, start: int) -> tuple[int, int] | None:
        """The first match at or after `start`: its begin and its end; None if there is none. Empty ones are ignored."""
        found = self._search(self._pattern, text, start)
        while found is not None and found.start() == found.end():
            found = self._search(self._pattern, text, found.end() + 1)
        return found.span() if found is not None else None

    def undecided_from(self, text: str, start: int) -> int:
        """Where the first match may begin, at or after `start`, that depends on the characters after this text."""
        found = self._search(self._undecided, text, start, partial=True)
        return found.start() if found is not None else len(text)

    def _search(self, pattern: Any, text: str, start: int, *, partial: bool = False) -> Any:
        if self._timeouts >= MOST_TIMEOUTS:
            raise TimeoutError(f"{self._pattern.pattern!r:.60} took too long {self._timeouts} times")
        try:
            return pattern.search(text, start, partial=partial, timeout=TIMEOUT)
        except TimeoutError:
            self._timeouts += 1
            raise


def _in_group(pattern: str, flags: int) -> str:
    """The pattern in a group. Flags at its begin stand before the group; a comment at its end ends with its line."""
    inline = re.match(r"\(\?[aimsux]+\)", pattern)
    first = inline[0] if inline is not None else ""
    end = "\n" if flags & re.VERBOSE else ""
    return first + _UNDECIDED % (pattern[len(first) :] + end)


def _compiled(pattern: str, flags: int) -> Any:
    import regex  # here, because only patterns of users need it

    try:
        return regex.compile(pattern, flags | regex.VERSION0)
    except (regex.error, ValueError) as error:
        raise ConfigError(
            f"redact has {pattern!r:.60}, which the library regex refuses: {error}; write it in another way"
        ) from error
