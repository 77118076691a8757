"""Recordings as portable files, out of one database and into another, byte for byte; docs/export.md."""

from recorder.export.counts import Counts
from recorder.export.exporter import Exported, export
from recorder.export.importer import Imported, import_

__all__ = ["Counts", "Exported", "Imported", "export", "import_"]
