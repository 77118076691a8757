"""Redaction of JSON text that arrives in pieces, by its values: a secret may be written with escapes.

Each string and each number is a text of its own. What replaces a match is written as JSON, so that the text stays JSON.
Text that turns out to be no JSON is read as plain text from there on.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

from recorder.core.json import dumps, loads
from recorder.redaction.scans import Replacement, Scan, applied

_STRUCTURE = re.compile(r"[\s{}\[\],:]*")
_PLAIN = re.compile(r'[^"\\]+')
_ESCAPE = re.compile(
    r'\\(?:["\\/bfnrt]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4})'
)
#: The begin of an escape, of which more may come: half of a pair is one, too.
_ESCAPE_BEGUN = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?))?\Z"
)
_BARE = re.compile(r'[^\s{}\[\],:"]+')
#: A number, or the begin of one or of another word of JSON.
_WORD = re.compile(
    r"[-+0-9.eE]+|t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?|N(?:aN?)?|-?I(?:n(?:f(?:i(?:n(?:i(?:ty?)?)?)?)?)?)?"
)
#: What the escapes of one letter mean.
_SHORT_ESCAPES = {
    '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
#: JSON in strings of JSON is read so deep.
_MAX_DEPTH = 4


class AutoScan:
    """Reads a text as JSON if it begins like an object or an array, else as plain text."""

    __slots__ = ("_depth", "_held", "_plain", "chosen", "decided")

    def __init__(self, plain: Callable[[], Scan], depth: int = 0) -> None:
        self._plain, self._depth = plain, depth
        self._held = ""
        #: What reads the text, once its begin is there; its places are the same.
        self.chosen: Scan | None = None
        self.decided = 0

    def feed(self, text: str, *, final: bool) -> Sequence[Replacement]:
        """Add a piece."""
        if self.chosen is None:
            self._held = text = self._held + text
            begin = text.lstrip()[:1]
            if not begin and not final and len(text) < 100:
                return ()
            is_json = begin in ("{", "[") and self._depth < _MAX_DEPTH
            self.chosen = JsonScan(self._plain, self._depth) if is_json else self._plain()
            self._held = ""
        found = self.chosen.feed(text, final=final)
        self.decided = self.chosen.decided
        return found


class _StringValue:
    """A string in JSON text, decoded, and where each of its characters is written."""

    __slots__ = ("_auto", "_decoded", "_is_escape", "_length", "_scan", "_written", "shift")

    def __init__(self, scan: AutoScan, start: int) -> None:
        self._scan: Scan = scan
        self._auto: AutoScan | None = scan
        #: Where the undecided parts of the string begin, decoded and as written; whether a part is one escape.
        self._decoded, self._written, self._is_escape = [0], [start], [False]
        self._length = 0
        #: How far behind its decoded place a character is written; None if this differs among the undecided ones.
        self.shift: int | None = None

    @property
    def decided(self) -> int:
        """Up to where the string is decided, as it is written."""
        return self._place(self._scan.decided)

    def shifted(self, text: str, shift: int) -> tuple[int, Sequence[Replacement]]:
        """As `plain`, while there is a shift: up to where the string is decided then, and what is replaced."""
        self._length += len(text)
        found = self._scan.feed(text, final=False)
        if found:
            found = [Replacement(a + shift, b + shift, dumps(new)[1:-1]) for a, b, new in found]
        return self._scan.decided + shift, found

    def plain(self, text: str) -> Sequence[Replacement]:
        """Characters without escapes."""
        return self._feed(text)

    def escape(self, text: str, written: str, start: int) -> Sequence[Replacement]:
        """An escape, and the character that it means."""
        self._begin(start, is_escape=True)
        found = self._feed(text)
        self._begin(start + len(written), is_escape=False)
        self._settle()
        return found

    def finish(self) -> Sequence[Replacement]:
        """The string has ended."""
        return self._feed("", final=True)

    def _begin(self, start: int, *, is_escape: bool) -> None:
        if self._decoded[-1] == self._length and len(self._decoded) > 1:
            self._written[-1], self._is_escape[-1] = start, is_escape
            return
        self._decoded.append(self._length)
        self._written.append(start)
        self._is_escape.append(is_escape)

    def _feed(self, text: str, *, final: bool = False) -> Sequence[Replacement]:
        self._length += len(text)
        found = self._scan.feed(text, final=final)
        if self._auto is not None and self._auto.chosen is not None:
            self._scan, self._auto = self._auto.chosen, None
        made = [Replacement(self._place(a), self._place(b), dumps(new)[1:-1]) for a, b, new in found]
        self._settle()
        return made

    def _place(self, decoded: int) -> int:
        part = bisect_right(self._decoded, decoded) - 1
        inside = 0 if self._is_escape[part] else decoded - self._decoded[part]
        return self._written[part] + inside

    def _settle(self) -> None:
        """Forget the places of what is decided, and set `shift`."""
        if (part := bisect_right(self._decoded, self._scan.decided) - 1) > 0:
            for each in (self._decoded, self._written, self._is_escape):
                del each[:part]
        is_simple = self._auto is None and len(self._decoded) == 1 and not self._is_escape[0]
        self.shift = self._written[0] - self._decoded[0] if is_simple else None


class JsonScan:
    """Reads JSON text."""

    __slots__ = (
        "_bare",
        "_depth",
        "_offset",
        "_plain",
        "_rest",
        "_rest_start",
        "_string",
        "_tail",
        "decided",
    )

    def __init__(self, plain: Callable[[], Scan], depth: int = 0) -> None:
        self._plain, self._depth = plain, depth
        #: The begin of an escape that was cut, and where it begins.
        self._tail = ""
        self._offset = 0
        #: The string, and the number or word, that has not ended.
        self._string: _StringValue | None = None
        self._bare = ""
        #: Reads the rest of a text that is no JSON, and where it begins.
        self._rest: Scan | None = None
        self._rest_start = 0
        self.decided = 0

    def feed(self, text: str, *, final: bool) -> Sequence[Replacement]:
        """Add a piece."""
        if self._rest is not None:
            return self._feed_rest(text, final=final)
        if (
            (string := self._string) is not None
            and (shift := string.shift) is not None
            and not (self._tail or final or '"' in text or "\\" in text)
        ):
            self._offset += len(text)
            self.decided, inside = string.shifted(text, shift)
            return inside
        text, self._tail = self._tail + text, ""
        found: list[Replacement] = []
        place = 0
        while place < len(text) and self._rest is None:
            if self._string is not None:
                step = self._read_string(text, place, found, final=final)
            elif self._bare or (match := _STRUCTURE.match(text, place)) is None or match.end() == place:
                step = self._read_bare(text, place, found)
            else:
                step = match.end()
            if step == place:  # an escape was cut
                break
            place = step
        return self._finish_piece(text, place, found, final=final)

    def _finish_piece(
        self, text: str, place: int, found: list[Replacement], *, final: bool
    ) -> Sequence[Replacement]:
        self._offset += place
        if self._rest is not None:
            rest, self._bare = self._bare + text[place:], ""
            return [*found, *self._feed_rest(rest, final=final)]
        self._tail = text[place:]
        if final and self._bare:
            self._end_bare(self._offset, found)
        if self._string is not None:
            found += self._string.finish() if final else ()
            self.decided = self._string.decided
        else:
            self.decided = self._offset - len(self._bare)
        if final:
            self.decided = self._offset + len(self._tail)
        return found

    def _feed_rest(self, text: str, *, final: bool) -> Sequence[Replacement]:
        assert self._rest is not None
        start = self._rest_start
        found = [Replacement(start + a, start + b, new) for a, b, new in self._rest.feed(text, final=final)]
        self.decided = start + self._rest.decided
        return found

    def _read_string(self, text: str, place: int, found: list[Replacement], *, final: bool) -> int:
        """Read on in a string; returns the place behind what was read."""
        assert self._string is not None
        if (plain := _PLAIN.match(text, place)) is not None:
            found += self._string.plain(plain[0])
            return plain.end()
        if text[place] == '"':
            found += self._string.finish()
            self._string = None
            return place + 1
        at = self._offset + place
        if (short := _SHORT_ESCAPES.get(text[place + 1 : place + 2])) is not None:
            found += self._string.escape(short, text[place : place + 2], at)
            return place + 2
        if not final and _ESCAPE_BEGUN.match(text, place) is not None:
            return place
        if (escape := _ESCAPE.match(text, place)) is None:  # a backslash that escapes nothing
            found += self._string.plain("\\")
            return place + 1
        found += self._string.escape(loads(f'"{escape[0]}"'), escape[0], at)
        return escape.end()

    def _read_bare(self, text: str, place: int, found: list[Replacement]) -> int:
        """Read a number or a word, or the begin of a string."""
        match = _BARE.match(text, place)
        if match is not None:
            self._bare += match[0]
            if _WORD.fullmatch(self._bare) is None:
                return self._leave_json(match.end())
            return match.end()
        if self._bare:
            self._end_bare(self._offset + place, found)
        if text[place] == '"':
            self._string = _StringValue(AutoScan(self._plain, self._depth + 1), self._offset + place + 1)
            return place + 1
        return place if self._bare else _STRUCTURE.match(text, place).end()  # type: ignore[union-attr]

    def _end_bare(self, end: int, found: list[Replacement]) -> None:
        """A number has ended. One that holds a match is replaced by a string."""
        number, self._bare = self._bare, ""
        if number[:1] in "+-0123456789" and (changes := self._plain().feed(number, final=True)):
            found.append(Replacement(end - len(number), end, dumps(applied(number, changes))))

    def _leave_json(self, end: int) -> int:
        """This is no JSON: a new scan reads the text from the begin of this word on."""
        self._rest = self._plain()
        self._rest_start = self._offset + end - len(self._bare)
        return end
