"""Cuts Gemini's streams into frames: server-sent events with `?alt=sse`, and otherwise one array of JSON."""

from __future__ import annotations

from recorder.wire.framing import Framing, Splitter
from recorder.wire.json_frames import FIRST, ObjectSplitter, cut_of
from recorder.wire.sse import FrameSplitter


class GeminiSplitter:
    """Chooses by the first character of the body. An error may be an object, also in place of events."""

    __slots__ = ("_blank", "_splitter")

    def __init__(self) -> None:
        #: The bytes before the first character.
        self._blank = bytearray()
        self._splitter: Splitter | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete, in order."""
        if self._splitter is not None:
            return self._splitter.feed(data)
        if (first := FIRST.search(data)) is None:
            return self._add_blank(data)
        self._splitter = ObjectSplitter() if first[0] in b"[{" else FrameSplitter()
        before, self._blank = bytes(self._blank), bytearray()
        return self._splitter.feed(before + data)

    def end(self) -> bytes:
        """The bytes after the last frame."""
        return self._splitter.end() if self._splitter is not None else bytes(self._blank)

    def _add_blank(self, data: bytes) -> list[bytes]:
        self._blank += data
        cut = cut_of(self._blank, 0)
        given, self._blank = bytes(self._blank[:cut]), self._blank[cut:]
        return [given] if given else []


#: Each event has at least one object, and so has each part of an answer.
FRAMING = Framing(GeminiSplitter, "text/event-stream", b"{", as_requested=True)
