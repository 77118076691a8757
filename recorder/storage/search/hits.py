"""Compares candidates with the complete query, and finds the place of the hit with the words around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from recorder.storage.search.query import SearchQuery
from recorder.storage.search.segmentation import Span, canonical, original_span, without_encoded

#: Characters of a snippet before the hit and from its start on.
_BEFORE, _FROM = 60, 140
#: A snippet is cut at a space if there is one within so many characters.
_TO_SPACE = 20
_MOST_MATCHES = 50


class SnippetPiece(NamedTuple):
    """A piece of plain text."""

    text: str
    #: Whether the query has it.
    is_match: bool


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One message that matches."""

    #: Its conversation.
    conversation_id: str
    message_id: str
    #: The run that produced it; None for a message that no model produced.
    run_id: str | None
    role: str
    #: ISO 8601, UTC.
    created_at: str
    #: Where in the message the first match is: its text, or the name and arguments of a tool call.
    part: Literal["text", "tool_call"]
    #: The place of the first match in the text of the message, in characters (code points), from 0; `end` is behind it.
    #: None in a tool call.
    start: int | None
    end: int | None
    #: The words around it. Joined they are a part of the text.
    snippet: tuple[SnippetPiece, ...]

    def as_dict(self) -> dict[str, Any]:
        """It for JSON; each piece of the snippet has `text` and `match`."""
        pieces = [{"text": text, "match": is_match} for text, is_match in self.snippet]
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "snippet": pieces}


def matches(query: SearchQuery, texts: Sequence[str]) -> bool:
    """Whether each phrase is in one of the texts."""
    shown = [canonical(without_encoded(text)) for text in texts]
    return all(any(phrase in text for text in shown) for phrase in query.phrases)


def first_match(query: SearchQuery, text: str) -> Span | None:
    """The first place of any phrase; None if there is none."""
    plain = without_encoded(text)
    shown = canonical(plain)
    found = [(place, len(phrase)) for phrase in query.phrases if (place := shown.find(phrase)) >= 0]
    return _original(plain, *min(found)) if found else None


def snippet(query: SearchQuery, text: str, place: Span) -> tuple[SnippetPiece, ...]:
    """The text around a match, with all matches in it."""
    begin, end = _cut(text, place)
    part = text[begin:end]
    pieces: list[SnippetPiece] = []
    done = 0
    for span in _merged([*_all_matches(query, part), Span(place.start - begin, min(place.end, end) - begin)]):
        pieces.append(SnippetPiece(part[done : span.start], False))
        pieces.append(SnippetPiece(part[span.start : span.end], True))
        done = span.end
    pieces.append(SnippetPiece(part[done:], False))
    return tuple(piece for piece in pieces if piece.text)


def _cut(text: str, place: Span) -> tuple[int, int]:
    """Where the snippet begins and ends: between two words if possible."""
    begin = max(0, place.start - _BEFORE)
    end = min(len(text), max(place.start + _FROM, min(place.end, place.start + 2 * _FROM)))
    if begin:
        space = text.find(" ", begin, min(begin + _TO_SPACE, place.start))
        begin = space + 1 if space >= 0 else begin
    if end < len(text):
        space = text.rfind(" ", max(end - _TO_SPACE, place.end), end)
        end = space if space >= 0 else end
    return begin, end


def _all_matches(query: SearchQuery, part: str) -> Iterator[Span]:
    plain = without_encoded(part)
    shown = canonical(plain)
    for phrase in query.phrases:
        place, count = shown.find(phrase), 0
        while place >= 0 and count < _MOST_MATCHES:
            yield _original(plain, place, len(phrase))
            place, count = shown.find(phrase, place + max(1, len(phrase) - 1)), count + 1


def _original(text: str, place: int, length: int) -> Span:
    return original_span(text, Span(place, place + length))


def _merged(spans: Sequence[Span]) -> list[Span]:
    """The spans in their order, those that overlap as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found
