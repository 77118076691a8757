"""Cuts Ollama's streams into frames: each line is one object."""

from __future__ import annotations

from recorder.wire.framing import Framing
from recorder.wire.json_frames import LineSplitter

#: Each line has at least one object, and so has each call in it. Proxies change the content type.
FRAMING = Framing(LineSplitter, "ndjson", b"{", as_requested=True)
