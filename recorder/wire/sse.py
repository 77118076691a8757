"""Server-sent events: bytes to frames and back.

A frame is the exact bytes of one event: its lines and the blank line that ends it. Comments, separators and trailing
bytes belong to a frame too, so the frames of a response joined are its body. The frames do not depend on how the bytes
were chunked.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: A frame longer than this (bytes) is returned in pieces, so that an endless stream needs bounded memory.
MAX_FRAME_BYTES = 16 * 2**20
#: The byte order mark, which some encoders write before the text.
BOM = b"\xef\xbb\xbf"

#: A partial frame up to this size (bytes) is searched again completely; a larger one only in its new bytes.
_SMALL = 16 * 1024
#: Data up to this size (bytes) are split in one call; larger data go through the buffer.
_LARGE = 2**20
#: The length of the longest blank line (bytes).
_BLANK = len(b"\r\n\r\n")

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LF_LF = re.compile(rb"\n\n")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DONE = re.compile(rb"\s*(?:\[DONE\]|\"?\[?DONE\]?\"?\s*$)", re.IGNORECASE)
#: Names of events, and types in their data, that end a stream in any format.
END_NAMES = frozenset(("done", "end", "message_stop"))


class Event(NamedTuple):
    """The fields of one frame."""

    #: The joined `data:` lines; None if the frame has none (a comment, a blank line).
    data: bytes | None
    #: The value of `event:`, or None.
    name: str | None = None
    #: The value of `id:`, or None.
    id: str | None = None
    #: The value of a field `error:` in place of `data:`, or None.
    error: bytes | None = None


class FrameSplitter:
    """Splits a body into frames, for any chunking; buffers little more than `MAX_FRAME_BYTES`."""

    __slots__ = ("_buffer", "_has_cr", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._has_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete, in order."""
        if b"\r" in data:
            self._has_cr = True
        if self._has_cr or len(self._buffer) > _SMALL or len(data) > _LARGE:
            return self._feed_buffered(data)
        if self._buffer:
            data = bytes(self._buffer) + data
            self._buffer.clear()
            self._searched = 0
        pieces = data.split(b"\n\n")
        if rest := pieces.pop():
            self._buffer += rest
            self._searched = max(0, len(rest) - _BLANK + 1)
        return [piece + b"\n\n" for piece in pieces]

    def end(self) -> bytes:
        """The bytes after the last blank line; empty if the body ended with one."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest

    def _feed_buffered(self, data: bytes) -> list[bytes]:
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        for end in self._ends():
            if end - start > MAX_FRAME_BYTES:
                frames += self._pieces(start, end)
            else:
                frames.append(bytes(buffer[start:end]))
            start = end
        # The buffer may end with the first bytes of a blank line, so the last bytes stay until more are received.
        cut = start + max(0, len(buffer) - start - _BLANK) // MAX_FRAME_BYTES * MAX_FRAME_BYTES
        frames += self._pieces(start, cut)
        if cut:
            del buffer[:cut]
        self._searched = max(0, len(buffer) - _BLANK + 1)
        return frames

    def _ends(self) -> list[int]:
        """The end position of each complete frame in the buffer."""
        ends: list[int] = []
        buffer, position = self._buffer, self._searched
        while True:
            match = _BLANK_LINE.search(buffer, position) if self._has_cr else _LF_LF.search(buffer, position)
            # A CR at the end of the buffer may be the first half of a CRLF, so the end of the frame is not known yet.
            if match is None or (match.end() == len(buffer) and buffer.endswith(b"\r")):
                return ends
            position = match.end()
            ends.append(position)

    def _pieces(self, start: int, end: int) -> list[bytes]:
        """Pieces of at most `MAX_FRAME_BYTES` of a frame that is too long."""
        steps = range(start, end, MAX_FRAME_BYTES)
        return [bytes(self._buffer[at : min(at + MAX_FRAME_BYTES, end)]) for at in steps]


def parse(frame: bytes) -> Event:
    """The fields of a frame. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    if frame.startswith(b"data: ") and frame.find(b"\n", 6) == len(frame) - 2 and b"\r" not in frame:
        return Event(frame[6:-2])
    data: list[bytes] = []
    name = event_id = error = None
    for line in frame.removeprefix(BOM).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id":
            event_id = value.decode("utf-8", "replace")
        elif value and field.lower() == b"error":
            error = value  # not in the standard, but some servers send errors in this field
    return Event(b"\n".join(data) if data else None, name, event_id, error)


def parse_frame_or_body(frame: bytes) -> Event:
    """The fields of a frame. A body that was not streamed, one JSON object, is the data of an event."""
    body = frame.removeprefix(BOM).lstrip()
    return Event(body) if body.startswith(b"{") else parse(frame)


def is_done(event: Event) -> bool:
    """Whether the event is only a terminator: OpenAI's `[DONE]` in any spelling, or an end event without JSON."""
    if event.data is None:
        return False
    return bool(_DONE.match(event.data)) or (event.name in END_NAMES and not event.data.startswith(b"{"))


def encode(data: bytes, name: str | None = None) -> bytes:
    """A frame with this data, one `data:` line for each line of it."""
    head = f"event: {name}\n".encode() if name else b""
    lines = b"".join(b"data: " + line + b"\n" for line in _LINE_END.split(data))
    return head + lines + b"\n"
