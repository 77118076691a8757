"""Server-sent events: bytes to frames and back.

A frame is one event exactly as it came: its lines and the blank line that ends it; comments, separators
and trailing bytes belong to a frame too, so a response's frames joined are its body. The frames are the
same whatever the chunking.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: A frame longer than this (bytes) is handed over in pieces, so that a stream without end takes no memory.
MAX_FRAME_BYTES = 16 * 2**20
#: The mark that some encoders write before the first byte of a text.
BOM = b"\xef\xbb\xbf"

#: Up to this size (bytes) a frame that is being collected is searched as a whole, and then only where it grows.
_SMALL = 16 * 1024
#: What comes at once is cut in one go up to this size (bytes).
_LARGE = 2**20
#: The longest blank line (bytes).
_BLANK = len(b"\r\n\r\n")

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LF_LF = re.compile(rb"\n\n")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DONE = re.compile(rb"\s*(?:\[DONE\]|\"?\[?DONE\]?\"?\s*$)", re.IGNORECASE)
#: Names of events, and types inside of their data, with which a stream ends, in whichever format.
END_NAMES = frozenset(("done", "end", "message_stop"))


class Event(NamedTuple):
    """The fields of one frame."""

    #: The joined `data:` lines; None when the frame has none (a comment, a blank line).
    data: bytes | None
    #: The `event:` name, or None.
    name: str | None = None
    #: The `id:`, or None.
    id: str | None = None
    #: What stands in a field `error:` in place of `data:`, or None.
    error: bytes | None = None


class FrameSplitter:
    """Cuts a body into frames; takes any chunking and keeps little more than `MAX_FRAME_BYTES`."""

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
        """The bytes after the last blank line; empty when the body ended cleanly."""
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
        # A blank line that only begins here may still end the frame: cutting waits for the whole of it.
        cut = start + max(0, len(buffer) - start - _BLANK) // MAX_FRAME_BYTES * MAX_FRAME_BYTES
        frames += self._pieces(start, cut)
        if cut:
            del buffer[:cut]
        self._searched = max(0, len(buffer) - _BLANK + 1)
        return frames

    def _ends(self) -> list[int]:
        """Where each complete frame ends in the buffer."""
        ends: list[int] = []
        buffer, position = self._buffer, self._searched
        while True:
            match = _BLANK_LINE.search(buffer, position) if self._has_cr else _LF_LF.search(buffer, position)
            # A CR at the very end may be half of a CRLF: its other half decides where the frame ends.
            if match is None or (match.end() == len(buffer) and buffer.endswith(b"\r")):
                return ends
            position = match.end()
            ends.append(position)

    def _pieces(self, start: int, end: int) -> list[bytes]:
        """What is too long for one frame."""
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
        elif (
            value and field.lower() == b"error"
        ):  # no field of the standard: some servers write their errors so
            error = value
    return Event(b"\n".join(data) if data else None, name, event_id, error)


def is_done(event: Event) -> bool:
    """Whether the event is a terminator that says nothing else: OpenAI's `[DONE]`, however it is written."""
    if event.data is None:
        return False
    return bool(_DONE.match(event.data)) or (event.name in END_NAMES and not event.data.startswith(b"{"))


def encode(data: bytes, name: str | None = None) -> bytes:
    """A frame with these data, one `data:` line for each of their lines."""
    head = f"event: {name}\n".encode() if name else b""
    lines = b"".join(b"data: " + line + b"\n" for line in _LINE_END.split(data))
    return head + lines + b"\n"
