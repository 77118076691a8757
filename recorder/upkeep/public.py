"""The public names of `recorder.upkeep`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.upkeep.stored_analysis import AnalyzedCounts as AnalyzedCounts
from recorder.upkeep.stored_analysis import StoredAnalysis as StoredAnalysis
