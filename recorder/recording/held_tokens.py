"""Holds back the tokens of a run until it is decided whether they are part of a match.

Tokens leave in the order in which they came, with their own times. A token without a match leaves as it came. A match
is replaced in the token in which it begins; tokens that consist of nothing else are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from recorder.core.json import dumps, loads
from recorder.redaction.json_scan import AutoScan
from recorder.redaction.message_redaction import redacted_calls
from recorder.redaction.redaction import MatchCounts, Redaction
from recorder.redaction.scans import Replacement, Scan
from recorder.wire.deltas import CITATION, OTHER, SIGNATURE, TOOL_CALL, Delta

#: Kinds whose deltas are JSON, each by itself.
_JSON_KINDS = frozenset((CITATION, OTHER, TOOL_CALL))
#: If more tokens wait, those that are decided pass the ones before them.
_MOST_WAITING = 10_000


class HeldToken:
    """A token that waits."""

    __slots__ = ("_delta", "at_us", "is_decided", "is_left_out", "text")

    def __init__(self, delta: Delta, at_us: int) -> None:
        self._delta, self.at_us = delta, at_us
        #: The text that is stored.
        self.text = delta.text
        #: Whether it may be stored, and whether nothing is left of it.
        self.is_decided = self.is_left_out = False

    @property
    def delta(self) -> Delta:
        """What is stored; the delta that came, if nothing of it was replaced."""
        delta = self._delta
        return delta if self.text is delta.text else delta._replace(text=self.text)


class _Stage:
    """One scan over the tokens of one text, and what comes after it."""

    __slots__ = ("_auto", "_end", "_next", "_replacements", "_scan", "_tokens")

    def __init__(self, scans: Sequence[AutoScan]) -> None:
        self._scan: Scan = scans[0]
        self._auto: AutoScan | None = scans[0]
        self._next = _Stage(scans[1:]) if len(scans) > 1 else None
        #: The undecided tokens, each with its end in the text, and the replacements in them.
        self._tokens: deque[tuple[int, HeldToken]] = deque()
        self._replacements: deque[Replacement] = deque()
        self._end = 0

    def add(self, token: HeldToken) -> None:
        """The next token of the text."""
        self._end += len(token.text)
        self._tokens.append((self._end, token))
        self._decide(self._scan.feed(token.text, final=False))
        if self._auto is not None and self._auto.chosen is not None:
            self._scan, self._auto = self._auto.chosen, None

    def finish(self) -> None:
        """No token follows."""
        self._decide(self._scan.feed("", final=True))
        if self._next is not None:
            self._next.finish()

    def _decide(self, replacements: Sequence[Replacement]) -> None:
        if replacements:
            self._replacements += replacements
        decided, tokens = self._scan.decided, self._tokens
        while tokens and tokens[0][0] <= decided:
            end, token = tokens.popleft()
            if self._replacements:
                self._replace(token, end - len(token.text), end)
            if self._next is not None and not token.is_left_out:
                self._next.add(token)
            else:
                token.is_decided = True

    def _replace(self, token: HeldToken, start: int, end: int) -> None:
        """Make the replacements that are in this token, or in a part of it."""
        parts, place = [], start
        while self._replacements and self._replacements[0].start < end:
            first = self._replacements[0]
            parts.append(token.text[place - start : max(first.start, place) - start])
            if first.start >= start:
                parts.append(first.text)
            place = min(first.end, end)
            if first.end > end:
                break
            self._replacements.popleft()
        if parts:
            token.text = "".join((*parts, token.text[place - start :]))
            token.is_left_out = not token.text


class HeldTokens:
    """The tokens of one run that wait. One thread or task adds them; the end may come from another one."""

    __slots__ = ("_counts", "_redaction", "_texts", "_waiting")

    def __init__(self, redaction: Redaction, counts: MatchCounts) -> None:
        self._redaction, self._counts = redaction, counts
        #: (kind, idx) -> the text that these tokens are pieces of.
        self._texts: dict[tuple[str, str], _Stage] = {}
        self._waiting: deque[HeldToken] = deque()

    def add(self, delta: Delta, at_us: int) -> Sequence[HeldToken]:
        """Add a token. Returns those that may be stored now."""
        token = HeldToken(delta, at_us)
        self._waiting.append(token)
        text, kind, idx = delta
        if kind == SIGNATURE:
            token.is_decided = True
        elif kind in _JSON_KINDS:
            token.text = self._redacted_json(text, kind)
            token.is_decided = True
        else:
            place = kind, idx
            stage = self._texts.get(place)
            if stage is None:
                stage = self._texts[place] = _Stage(self._redaction.scans(self._counts))
            stage.add(token)
        return self._decided()

    def finish(self) -> Sequence[HeldToken]:
        """The run has ended: all tokens that wait, decided by what there is."""
        texts, self._texts = self._texts, {}
        for stage in texts.values():
            stage.finish()
        return self._decided()

    def _redacted_json(self, text: str, kind: str) -> str:
        if kind != TOOL_CALL:
            return self._redaction.json(text, self._counts)
        call = loads(text)
        [new] = redacted_calls([call], self._redaction, self._counts)
        return text if new == call else dumps(new)

    def _decided(self) -> Sequence[HeldToken]:
        waiting = self._waiting
        found: list[HeldToken] = []
        while waiting and waiting[0].is_decided:
            token = waiting.popleft()
            if not token.is_left_out:
                found.append(token)
        if len(waiting) > _MOST_WAITING:
            found += [token for token in waiting if token.is_decided and not token.is_left_out]
            self._waiting = deque(token for token in waiting if not token.is_decided)
        return found
