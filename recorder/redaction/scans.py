"""Redaction of one text that arrives in pieces: what is decided, and what is replaced in it.

Each scan has `feed`, which adds a piece and returns the new replacements, and `decided`: everything before this place
will not change any more. Places count characters from the begin of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from recorder.redaction.ready_made import BETWEEN_WORDS, SHORT_WORD
from recorder.redaction.scanner import Match, Scanner

#: Characters. A text is held back so far at most. What may be a match and is longer is withheld.
WINDOW = 4_096
#: Stands for a text that is not stored, because it could not be redacted.
WITHHELD = "withheld"
#: Characters before the undecided part, at which patterns look back.
_CONTEXT = 64


class Replacement(NamedTuple):
    """What replaces a part of a text."""

    start: int
    end: int
    text: str


class Scan(Protocol):
    """The redaction of one text that arrives in pieces."""

    #: The part before this place is decided.
    decided: int

    def feed(self, text: str, *, final: bool) -> Sequence[Replacement]:
        """Add a piece. `final`: it is the last one. Returns what is replaced in the part that this decides."""


class Notes(Protocol):
    """Where a redaction notes what it did."""

    def count(self, name: str) -> None:
        """A match of the pattern with this name was replaced."""

    def failed(self, reason: str) -> None:
        """A text could not be redacted and is withheld."""


def shown(name: str) -> str:
    """What replaces a match of the pattern with this name."""
    return f"[{name}]"


class TextScan:
    """Searches a text for patterns."""

    __slots__ = ("_buffer", "_end", "_is_withheld", "_next", "_notes", "_scanner", "_start", "decided")

    def __init__(self, scanner: Scanner, notes: Notes) -> None:
        self._scanner, self._notes = scanner, notes
        #: The undecided part, some characters before it, and where these begin and end.
        self._buffer = ""
        self._start = self._end = self.decided = 0
        #: No search before the text is so long, so that a long undecided part is not searched for each piece.
        self._next = 0
        self._is_withheld = False

    def feed(self, text: str, *, final: bool) -> Sequence[Replacement]:
        """Add a piece."""
        if self._scanner.passes_words and not final and self._pass_word(text):
            return ()
        self._end += len(text)
        if self._is_withheld:
            before, self.decided = self.decided, self._end
            return [Replacement(before, self._end, "")]
        self._buffer += text
        if self._end < self._next and not final:
            return ()
        start = self._start
        try:
            until, found = self._scanner.scan(self._buffer, self.decided - start, final=final)
        except TimeoutError:
            return self._withhold("a pattern took too long")
        self.decided = start + until
        replacements = [self._replaced(match) for match in found] if found else ()
        undecided = self._end - self.decided
        if undecided > WINDOW:
            return [*replacements, *self._withhold(f"a match may have more than {WINDOW:,} characters")]
        self._next = self._end + undecided // 8
        if until > 4 * _CONTEXT:
            self._start += until - _CONTEXT
            self._buffer = self._buffer[until - _CONTEXT :]
        return replacements

    def _pass_word(self, text: str) -> bool:
        """Add a piece without a search, if it has only short words and what stands between words, as most have."""
        word = self._buffer[self.decided - self._start :]
        if (word and not word.isalpha()) or len(word) + len(text) > SHORT_WORD or self._is_withheld:
            return False
        words = text.strip(BETWEEN_WORDS)
        if words and not words.isalpha() and not words.replace(" ", "").isalpha():
            return False
        end = self._end = self._end + len(text)
        if words == text and " " not in words:
            self._buffer += text
            return True
        self._start, self._buffer = end - len(text), text
        is_open = words and text.endswith(words)
        self.decided = end - len(words) + words.rfind(" ") + 1 if is_open else end
        return True

    def _replaced(self, match: Match) -> Replacement:
        self._notes.count(match.name)
        return Replacement(self._start + match.start, self._start + match.end, shown(match.name))

    def _withhold(self, reason: str) -> Sequence[Replacement]:
        """The rest of the text is not stored, from what is undecided on."""
        self._is_withheld = True
        self._buffer = ""
        self._notes.failed(reason)
        before, self.decided = self.decided, self._end
        return [Replacement(before, self._end, shown(WITHHELD))]


class LineScan:
    """Calls a function of the user with each line of a text. A longer line is cut where it has a space."""

    __slots__ = ("_buffer", "_function", "_notes", "decided")

    def __init__(self, function: Callable[[str], Any], notes: Notes) -> None:
        self._function, self._notes = function, notes
        self._buffer = ""
        self.decided = 0

    def feed(self, text: str, *, final: bool) -> Sequence[Replacement]:
        """Add a piece."""
        self._buffer += text
        replacements: list[Replacement] = []
        start = 0
        while start < len(self._buffer) and (end := self._end_of_line(start, final=final)):
            replacements += self._changes(self._buffer[start:end])
            self.decided += end - start
            start = end
        self._buffer = self._buffer[start:]
        return replacements

    def _end_of_line(self, start: int, *, final: bool) -> int:
        """Where the part ends that the function gets next; 0 if its end has not arrived."""
        limit = start + WINDOW
        end = self._buffer.find("\n", start, limit) + 1
        if end or (len(self._buffer) <= limit and not final):
            return end
        if len(self._buffer) <= limit:
            return len(self._buffer)
        return self._buffer.rfind(" ", start, limit) + 1 or limit

    def _changes(self, line: str) -> Sequence[Replacement]:
        try:
            new = self._function(line)
        except Exception as error:  # the user's code
            return self._withheld(line, f"a function raised {type(error).__name__}")
        if not isinstance(new, str):
            return self._withheld(line, f"a function returned {type(new).__name__} in place of str")
        if new == line:
            return ()
        self._notes.count("function")
        same = _common(line, new)
        end = _common(line[: same - 1 if same else None : -1], new[: same - 1 if same else None : -1])
        return [Replacement(self.decided + same, self.decided + len(line) - end, new[same : len(new) - end])]

    def _withheld(self, line: str, reason: str) -> Sequence[Replacement]:
        self._notes.failed(reason)
        return [Replacement(self.decided, self.decided + len(line), shown(WITHHELD))]


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    for number, (each, opposite) in enumerate(zip(one, other, strict=False)):
        if each != opposite:
            return number
    return min(len(one), len(other))


def applied(text: str, replacements: Sequence[Replacement]) -> str:
    """The text with these replacements."""
    if not replacements:
        return text
    parts: list[str] = []
    place = 0
    for start, end, new in replacements:
        parts += (text[place:start], new)
        place = end
    return "".join((*parts, text[place:]))
