"""Cuts bodies of JSON into frames: lines of JSON, or the objects of an array.

The bytes between two objects belong to the frame of the later one. The bytes after the last object are the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from recorder.wire.sse import BOM, MAX_FRAME_BYTES

_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
#: What may stand before the first value of a body, and the first character of that value.
BLANK = BOM + b" \t\r\n"
FIRST = re.compile(rb"[^%b]" % BLANK)


class LineSplitter:
    """Splits a body into lines. A blank line belongs to the next line that is not blank."""

    __slots__ = ("_buffer", "_has_content", "_line", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        #: Whether a piece of the next frame that is not blank was given away.
        self._has_content = False
        #: Where the last line begins in the buffer, and where the search for its end goes on.
        self._line = 0
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, in order."""
        self._buffer += data
        start, frames = 0, []
        while (end := self._buffer.find(b"\n", self._searched) + 1) > 0:
            is_blank = not self._has_content and not self._buffer[self._line : end].strip()
            self._line = self._searched = end
            if not is_blank:
                frames += pieces(self._buffer, start, end)
                start, self._has_content = end, False
        cut = cut_of(self._buffer, start)
        self._has_content = self._has_content or bool(self._buffer[start:cut].strip())
        frames += pieces(self._buffer, start, cut)
        del self._buffer[:cut]
        self._line = max(0, self._line - cut)
        self._searched = len(self._buffer)
        return frames

    def end(self) -> bytes:
        """The bytes after the last line; empty if the body ended with a line end."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._line = self._searched = 0
        return rest


class ObjectSplitter:
    """Splits a body into the objects of an array, or into objects that follow each other without one."""

    __slots__ = ("_buffer", "_depth", "_depth_of_objects", "_is_quoted", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._depth = 0
        #: How many brackets are open around an object; None before the first character.
        self._depth_of_objects: int | None = None
        self._is_quoted = False

    def feed(self, data: bytes) -> list[bytes]:
        """The objects that these bytes complete, in order."""
        self._buffer += data
        if self._depth_of_objects is None and (first := FIRST.search(self._buffer, self._searched)):
            self._depth_of_objects = 1 if first[0] == b"[" else 0
        start, frames = 0, []
        for end in self._ends():
            frames += pieces(self._buffer, start, end)
            start = end
        cut = cut_of(self._buffer, start)
        frames += pieces(self._buffer, start, cut)
        del self._buffer[:cut]
        self._searched -= cut
        return frames

    def end(self) -> bytes:
        """The bytes after the last object."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest

    def _ends(self) -> Iterator[int]:
        """The end position of each object in the bytes that were not searched yet."""
        buffer, at = self._buffer, self._searched
        while match := (_INSIDE if self._is_quoted else _OUTSIDE).search(buffer, at):
            at = match.end()
            if match[0] == b"\\":
                if at == len(buffer):  # the escaped byte was not received yet
                    self._searched = at - 1
                    return
                at += 1
            elif match[0] == b'"':
                self._is_quoted = not self._is_quoted
            elif self._closes_object(match[0]):
                yield at
        self._searched = len(buffer)

    def _closes_object(self, bracket: bytes) -> bool:
        if bracket in b"{[":
            self._depth += 1
            return False
        self._depth = max(0, self._depth - 1)
        return bracket == b"}" and self._depth == self._depth_of_objects


def cut_of(buffer: bytearray, start: int) -> int:
    """Up to where the bytes of an incomplete frame are given away, so that at most `MAX_FRAME_BYTES` are kept."""
    return start + max(0, len(buffer) - start - 1) // MAX_FRAME_BYTES * MAX_FRAME_BYTES


def pieces(buffer: bytearray, start: int, end: int) -> list[bytes]:
    """The bytes from start to end, in pieces of at most `MAX_FRAME_BYTES`."""
    return [bytes(buffer[at : min(at + MAX_FRAME_BYTES, end)]) for at in range(start, end, MAX_FRAME_BYTES)]
