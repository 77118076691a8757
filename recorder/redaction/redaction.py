"""`redact=`: what is replaced in texts, JSON values and messages before they are stored."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from recorder.config import Redactor
from recorder.core.json import dumps, loads
from recorder.errors import ConfigError
from recorder.redaction.json_scan import AutoScan
from recorder.redaction.ready_made import READY_MADE, Email, ReadyMade
from recorder.redaction.scanner import Scanner
from recorder.redaction.scans import WITHHELD, LineScan, Notes, TextScan, applied, shown
from recorder.redaction.user_pattern import UserPattern

log = logging.getLogger("recorder")

#: Keys whose values may be binary data or text that only the provider can read.
_OPAQUE = frozenset((
    "b64_json", "blob", "bytes", "data", "encrypted_content", "file_data", "image", "signature", "thoughtSignature",
    "thought_signature",
))  # fmt: skip
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,[A-Za-z0-9+/=_-]*")
#: A number with fewer digits is no card, phone number or IBAN.
_LEAST_NUMBER = 10_000_000
#: Values that are nested deeper are withheld.
_MAX_DEPTH = 200
#: Texts up to so many characters are remembered with what was replaced in them: a client sends its history again and
#: again.
_REMEMBERED, _MOST_REMEMBERED = 20_000, 1_000


class MatchCounts(dict[str, int]):
    """How many matches were replaced, by the name of the pattern, and how many texts were withheld."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self.redaction = redaction

    def count(self, name: str) -> None:
        """As `Notes.count`."""
        self[name] = self.get(name, 0) + 1

    def failed(self, reason: str) -> None:
        """As `Notes.failed`."""
        self.count(WITHHELD)
        self.redaction.note_failure(reason)

    def add(self, others: Iterable[tuple[str, int]]) -> None:
        """Add other counts."""
        for name, number in others:
            self[name] = self.get(name, 0) + number


class Redaction:
    """What one recorder replaces. Deterministic: the same text gives the same result, in one piece or in many."""

    def __init__(self, redactors: Sequence[Redactor]) -> None:
        """Raises `ConfigError` for an unknown name, a pattern that cannot be used, or another value."""
        self._scanner = Scanner([_pattern(each) for each in redactors if not _is_function(each)])
        self._functions = [each for each in redactors if callable(each)]
        #: How many texts were withheld, because they could not be redacted.
        self.failures = 0
        self._logged: set[str] = set()
        self._remembered: dict[str, tuple[str, tuple[tuple[str, int], ...]]] = {}

    def __repr__(self) -> str:
        return f"Redaction({len(self._functions)} functions, {self._scanner!r})"

    def scans(self, notes: Notes) -> list[AutoScan]:
        """New scans for one text. Each gets what the one before it left."""
        return [AutoScan(lambda: TextScan(self._scanner, notes)), *(
            AutoScan(lambda function=each: LineScan(function, notes)) for each in self._functions  # type: ignore[misc]
        )]  # fmt: skip

    def note_failure(self, reason: str) -> None:
        """Count a text that is withheld, and log each reason once. The text is not logged."""
        self.failures += 1
        if reason not in self._logged:
            self._logged.add(reason)
            log.error(
                "Redaction failed: %s; a text is stored as %s, also in later cases", reason, shown(WITHHELD)
            )

    def text(self, text: str, counts: MatchCounts) -> str:
        """The text with its matches replaced. In text that is JSON, by its values; it stays JSON."""
        if (known := self._remembered.get(text)) is None:
            found = MatchCounts(self)
            known = self._redacted(text, found), tuple(found.items())
            if len(text) <= _REMEMBERED:
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered = {}  # a new one: another thread may use the old one
                self._remembered[text] = known
        if known[1]:
            counts.add(known[1])
        return known[0]

    def _redacted(self, text: str, counts: MatchCounts) -> str:
        for scan in self.scans(counts):
            text = applied(text, scan.feed(text, final=True))
        return text

    def json(self, text: str, counts: MatchCounts) -> str:
        """JSON text with the matches in its values and keys replaced; the same text if there are none."""
        value = loads(text)
        changed = self.value(value, counts)
        return text if changed is value else dumps(changed)

    def value(self, value: Any, counts: MatchCounts, key: Any = None, depth: int = 0) -> Any:
        """A JSON value with the matches in its texts, numbers and keys replaced; the same object if there are none."""
        if type(value) is str:
            return value if _is_opaque(key, value) else self.text(value, counts)
        if value is None or type(value) in (bool, float):
            return value
        if type(value) is int:
            text = self.text(str(value), counts) if abs(value) >= _LEAST_NUMBER else ""
            return text if text and text != str(value) else value
        if depth > _MAX_DEPTH:
            counts.failed(f"a value is nested more than {_MAX_DEPTH} deep")
            return shown(WITHHELD)
        if isinstance(value, dict):
            return self._object(value, counts, depth)
        if isinstance(value, (list, tuple)):
            new = [self.value(each, counts, key, depth + 1) for each in value]
            return value if _are_same(new, value) else new
        return self.value(loads(dumps(value)), counts, key, depth + 1)

    def _object(self, value: dict[Any, Any], counts: MatchCounts, depth: int) -> dict[Any, Any]:
        new = {
            self.text(key, counts) if type(key) is str else key: self.value(entry, counts, key, depth + 1)
            for key, entry in value.items()
        }
        if len(new) == len(value) and _are_same(new.values(), value.values()) and new.keys() == value.keys():
            return value
        return new


def redaction_from(given: Any) -> Redaction | None:
    """The redaction of the option `redact`; None if nothing is given. Raises `ConfigError`."""
    if isinstance(given, Redaction):
        return given
    if given is None or (isinstance(given, (list, tuple)) and not given):
        return None
    if isinstance(given, (str, re.Pattern)) or _is_function(given):
        raise ConfigError(f"redact is {given!r:.60}; pass a list, redact=[{given!r:.60}]")
    if not isinstance(given, (list, tuple, set, frozenset)):
        raise ConfigError(f"redact is {type(given).__name__}; pass a list of names, patterns and functions")
    return Redaction(sorted(given) if isinstance(given, (set, frozenset)) else given)


def _is_function(given: Any) -> bool:
    return callable(given) and not isinstance(given, type)


def _pattern(given: Any) -> ReadyMade | Email | UserPattern:
    if isinstance(given, re.Pattern):
        return UserPattern(given)
    if isinstance(given, str) and given in READY_MADE:
        return READY_MADE[given]
    names = ", ".join(map(repr, READY_MADE))
    if isinstance(given, str):
        raise ConfigError(f"redact has {given!r:.60}; choose of {names}, or pass re.compile({given!r:.60})")
    raise ConfigError(
        f"redact has {type(given).__name__}; pass one of {names}, a compiled pattern, or a function of a str"
    )


def _is_opaque(key: Any, text: str) -> bool:
    """Whether a text is data, and no text: an inline image or file, or what the provider has encrypted."""
    if key in _OPAQUE and _BASE64.fullmatch(text) is not None:
        return True
    return text.startswith("data:") and _DATA_URL.fullmatch(text) is not None


def _are_same(new: Iterable[Any], old: Iterable[Any]) -> bool:
    return all(one is other for one, other in zip(new, old, strict=True))
