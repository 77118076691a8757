"""Recordings as portable files, out of one database and into another, byte for byte; docs/export.md."""

from recorder.export.back import Imported, import_
from recorder.export.counts import Counts
from recorder.export.out import Exported, export

__all__ = ["Counts", "Exported", "Imported", "export", "import_"]
