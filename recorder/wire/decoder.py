"""Decodes frames for the translators of all formats; content that cannot be decoded becomes a delta, never an error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from recorder.core.json import dumps
from recorder.wire.deltas import OTHER, Delta
from recorder.wire.framing import EVENTS, Framing
from recorder.wire.reply import Reply
from recorder.wire.sse import parse

#: The delta of an undecodable frame holds at most this many bytes of it; the recorded frame holds all of them.
MAX_OTHER = 64 * 1024
_NO_DELTAS: tuple[Delta, ...] = ()


class Decoder(ABC):
    """Decodes the frames of one response that the fast path of the format does not decode."""

    #: What cuts the body of a stream into frames.
    framing: Framing = EVENTS
    #: The answer received so far.
    reply: Reply

    @abstractmethod
    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        """Decodes a frame whose event was not parsed yet."""

    @abstractmethod
    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes a parsed event."""

    def _decode(self, frame: bytes, event: Any) -> Sequence[Delta]:
        if self.reply.terminated:
            return _NO_DELTAS
        deltas: list[Delta] = []
        try:
            if event is None:
                self._decode_other(frame, deltas)
            else:
                self._decode_event(event, deltas)
        except Exception:
            # The recording goes on whatever a provider sends; the delta holds what could not be decoded.
            data = parse(frame).data or frame
            text = data[:MAX_OTHER].decode("utf-8", "replace")
            deltas.append(Delta(dumps({"undecodable": text}), OTHER))
        for delta in deltas:
            self.reply.add(delta)
        return deltas
