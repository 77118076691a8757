"""The export format: JSON lines, similar to asciicast. `docs/export.md` describes it.

`write` turns the rows of a database into lines, and `read` turns lines into the same rows. Neither does I/O.
"""

from recorder.export.format.read import Header, read
from recorder.export.format.shapes import FORMAT, VERSION, Row
from recorder.export.format.write import write

__all__ = ["FORMAT", "VERSION", "Header", "Row", "read", "write"]
