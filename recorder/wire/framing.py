"""How the body of a stream is cut into frames: each wire format has its framing.

The frames of a body joined are the body, and they do not depend on how the bytes were chunked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from recorder.wire.sse import FrameSplitter


class Splitter(Protocol):
    """Cuts one body into frames. It buffers little more than `sse.MAX_FRAME_BYTES`."""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete, in order."""

    def end(self) -> bytes:
        """The bytes after the last complete frame; empty if there are none."""


class Framing(NamedTuple):
    """What tells a stream from a body that is not streamed, and what cuts it into frames."""

    #: Makes the splitter of one body.
    splitter: Callable[[], Splitter]
    #: A part of the content type of a stream.
    media_type: str
    #: Bytes that each event has, so that their number in a body says how many events it has at most, about.
    event_mark: bytes
    #: Whether the answer to a request for a stream is a stream, whatever its content type says.
    as_requested: bool = False

    def is_stream(self, content_type: str, *, requested: bool) -> bool:
        """Whether a response with this content type (in lower case) is a stream."""
        return self.media_type in content_type or (requested and self.as_requested)


#: Server-sent events.
EVENTS = Framing(FrameSplitter, "text/event-stream", b"\n\n")
