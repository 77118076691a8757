"""Makes a recorder together with the analysis that its options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.config import Config
from recorder.recording.recorder import Recorder
from recorder.storage.store_interface import Store

if TYPE_CHECKING:
    from recorder.analysis.live import Analysis


def recorder_of(url: str | None, config: Config, store: Store | None) -> tuple[Recorder, Analysis | None]:
    """The recorder, and what analyzes its texts if `analyze` is set. Raises as both do."""
    analysis = _analysis_of(config) if config.analyze else None
    recorder = Recorder(url, config, store=store)
    if analysis is not None:
        analysis.store_with(recorder.annotate)
        recorder.listeners.add(analysis)
    return recorder, analysis


def _analysis_of(config: Config) -> Analysis:
    from recorder.analysis.live import Analysis  # with its modules only where it is used

    return Analysis(config.analyze, executor=config.analyze_in, timeout=config.analyze_timeout)
