"""The public names of `recorder.analysis`, each with its module. `recorder.core.lazy_imports` reads them."""

from recorder.analysis.analyzers import Analyzer as Analyzer
from recorder.analysis.analyzers import FunctionAnalyzer as FunctionAnalyzer
from recorder.analysis.evaluation import Evaluation as Evaluation
from recorder.analysis.live import Analysis as Analysis
from recorder.analysis.sentences import SentenceCutter as SentenceCutter
from recorder.analysis.sentiment import Sentiment as Sentiment
from recorder.analysis.stats import AnalysisStats as AnalysisStats
from recorder.analysis.stats import AnalyzerStats as AnalyzerStats
from recorder.analysis.texts import AnalyzedText as AnalyzedText
