"""Recordings as lines of text: a portable file of JSON lines, in the spirit of asciicast.

The rows of any database to lines, and back, byte for byte the same; no I/O. `docs/export.md` describes the format.
"""

from recorder.export.format.read import Header, read
from recorder.export.format.shapes import FORMAT, VERSION, Row
from recorder.export.format.write import write

__all__ = ["FORMAT", "VERSION", "Header", "Row", "read", "write"]
