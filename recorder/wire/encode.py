"""A recorded run as a provider's bytes again: any run in any of the formats, streamed or whole.

For runs that were recorded without frames, and for clients that speak another format than the run's provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import orjson

from recorder.errors import ConfigError
from recorder.wire.anthropic import encode as anthropic_encode
from recorder.wire.deltas import Delta
from recorder.wire.openai import encode_chat as openai_encode_chat
from recorder.wire.openai import encode_completions as openai_encode_completions
from recorder.wire.recorded import ANTHROPIC, CHAT, COMPLETIONS, Around, Recorded, Timed, quoted


class Stream(Protocol):
    """The events of one run in one format."""

    def opening(self, first: Delta | None) -> Iterable[bytes]:
        """What comes before the first delta; None where there is none."""

    def said(self, delta: Delta) -> Iterable[bytes]:
        """The events of a delta, none for what has no place in the format."""

    def around(self, delta: Delta) -> Around | None:
        """What stands around the text in the event of each delta like this one, as long as no other comes."""

    def ending(self) -> Iterable[bytes]:
        """What comes after the last delta."""


class _Format(NamedTuple):
    stream: Callable[[Recorded], Stream]
    body: Callable[[Recorded, Timed], bytes]


_FORMATS = {
    CHAT: _Format(openai_encode_chat.ChatStream, openai_encode_chat.body),
    COMPLETIONS: _Format(openai_encode_completions.CompletionsStream, openai_encode_completions.body),
    ANTHROPIC: _Format(anthropic_encode.AnthropicStream, anthropic_encode.body),
}
#: What can be encoded.
WIRES = tuple(_FORMATS)


def encode(wire: str, run: Recorded, deltas: Timed) -> Iterator[tuple[int, bytes]]:
    """The server-sent events of a stream in this wire format, each with its microseconds since the request.

    Lazy: an event comes when its delta does, and nothing is kept. Raises `ConfigError` for another format.
    """
    return _events(_format(wire).stream(run), run, iter(deltas))


def stream(wire: str, run: Recorded) -> Stream:
    """The same, one delta after the other as they are handed over. Raises `ConfigError` for another format."""
    return _format(wire).stream(run)


def body(wire: str, run: Recorded, deltas: Timed) -> bytes:
    """The same answer as one JSON body, for requests that did not ask for a stream; of a run that failed, the error.

    Raises `ConfigError` for another format, `StoreError` for an answer that is too long for one body.
    """
    return _format(wire).body(run, deltas)


def _events(stream: Stream, run: Recorded, items: Iterator[tuple[int, Delta]]) -> Iterator[tuple[int, bytes]]:
    first = next(items, None)
    at_us = first[0] if first is not None else run.ended_us or 0
    for frame in stream.opening(first[1] if first is not None else None):
        yield at_us, frame
    if first is not None:
        for frame in stream.said(first[1]):
            yield at_us, frame
    # Most deltas are like the one before, and their events differ in nothing but the text.
    quote, like_kind, like_idx, before, behind = orjson.dumps, "", "", b"", b""
    for at_us, delta in items:
        text, kind, idx = delta
        if kind == like_kind and idx == like_idx:
            try:
                yield at_us, before + quote(text) + behind
            except orjson.JSONEncodeError:
                yield at_us, before + quoted(text) + behind
            continue
        for frame in stream.said(delta):
            yield at_us, frame
        like_kind = ""
        if (around := stream.around(delta)) is not None:
            like_kind, like_idx, (before, behind) = kind, idx, around
    ended = max(at_us, run.ended_us or 0)
    for frame in stream.ending():
        yield ended, frame


def _format(wire: str) -> _Format:
    if wire not in _FORMATS:
        raise ConfigError(f"There is no encoder for wire format {wire!r}; choose one of {', '.join(WIRES)}")
    return _FORMATS[wire]
