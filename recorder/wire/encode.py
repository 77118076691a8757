"""Encodes a recorded run as a provider's bytes: any run in any wire format, as a stream or as one JSON body.

It is used for runs that were recorded without frames, and for clients of another format than the run's provider.
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
from recorder.wire.openai import encode_responses as openai_encode_responses
from recorder.wire.recorded_run import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    RESPONSES,
    Recorded,
    TextTemplate,
    TimedDeltas,
    json_string,
)


class StreamEncoder(Protocol):
    """Encodes the events of one run in one format."""

    def opening(self, first: Delta | None) -> Iterable[bytes]:
        """The frames before the first delta; `first` is None if the run has no deltas."""

    def events(self, delta: Delta) -> Iterable[bytes]:
        """The frames of a delta; none if the format cannot express it."""

    def text_template(self, delta: Delta) -> TextTemplate | None:
        """The bytes before and after the text in the frame of a delta with the same kind and idx as this one.

        They are valid until a delta of another kind or idx is encoded. None if such a delta needs more than its text.
        """

    def ending(self) -> Iterable[bytes]:
        """The frames after the last delta."""


class _Format(NamedTuple):
    encoder: Callable[[Recorded], StreamEncoder]
    body: Callable[[Recorded, TimedDeltas], bytes]


_FORMATS = {
    CHAT: _Format(openai_encode_chat.ChatEncoder, openai_encode_chat.body),
    COMPLETIONS: _Format(openai_encode_completions.CompletionsEncoder, openai_encode_completions.body),
    RESPONSES: _Format(openai_encode_responses.ResponsesEncoder, openai_encode_responses.body),
    ANTHROPIC: _Format(anthropic_encode.AnthropicEncoder, anthropic_encode.body),
}
#: The formats that can be encoded.
WIRES = tuple(_FORMATS)


def encode(wire: str, run: Recorded, deltas: TimedDeltas) -> Iterator[tuple[int, bytes]]:
    """The server-sent events of a stream in this wire format, each with its time in microseconds since the request.

    Lazy: each delta is encoded when it is read. Nothing is collected, except for OpenAI's Responses, whose last event
    holds the complete answer. Raises `ConfigError` for an unknown format.
    """
    return _events(_format(wire).encoder(run), run, iter(deltas))


def encoder_of(wire: str, run: Recorded) -> StreamEncoder:
    """An encoder that takes one delta at a time. Raises `ConfigError` for an unknown format."""
    return _format(wire).encoder(run)


def body(wire: str, run: Recorded, deltas: TimedDeltas) -> bytes:
    """The answer as one JSON body, for requests without streaming; the error's body if the run failed.

    Raises `ConfigError` for an unknown format, `StoreError` for an answer that is too long for one body.
    """
    return _format(wire).body(run, deltas)


def _events(
    encoder: StreamEncoder, run: Recorded, timed: Iterator[tuple[int, Delta]]
) -> Iterator[tuple[int, bytes]]:
    first = next(timed, None)
    at_us = first[0] if first is not None else run.ended_us or 0
    for frame in encoder.opening(first[1] if first is not None else None):
        yield at_us, frame
    if first is not None:
        for frame in encoder.events(first[1]):
            yield at_us, frame
    # Most deltas have the kind and idx of the delta before, so that their events differ only in the text.
    quote, last_kind, last_idx, prefix, suffix = orjson.dumps, "", "", b"", b""
    for at_us, delta in timed:
        text, kind, idx = delta
        if kind == last_kind and idx == last_idx:
            try:
                yield at_us, prefix + quote(text) + suffix
            except orjson.JSONEncodeError:
                yield at_us, prefix + json_string(text) + suffix
            continue
        for frame in encoder.events(delta):
            yield at_us, frame
        last_kind = ""
        if (template := encoder.text_template(delta)) is not None:
            last_kind, last_idx, (prefix, suffix) = kind, idx, template
    ended_us = max(at_us, run.ended_us or 0)
    for frame in encoder.ending():
        yield ended_us, frame


def _format(wire: str) -> _Format:
    if wire not in _FORMATS:
        raise ConfigError(f"There is no encoder for wire format {wire!r}; choose one of {', '.join(WIRES)}")
    return _FORMATS[wire]
