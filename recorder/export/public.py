"""The public names of `recorder.export`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.export.counts import Counts as Counts
from recorder.export.exporter import Exported as Exported
from recorder.export.exporter import export as export
from recorder.export.importer import Imported as Imported
from recorder.export.importer import import_ as import_
