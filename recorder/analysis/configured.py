"""Makes the analysis that the options of a recorder ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.config import Config

if TYPE_CHECKING:
    from recorder.analysis.live import Analysis


def analysis_of(config: Config) -> Analysis | None:
    """What analyzes the texts of a recorder; None without analyzers. Raises as `Analysis` does."""
    if not config.analyze:
        return None
    from recorder.analysis.live import Analysis  # with its modules only where it is used

    return Analysis(config.analyze, executor=config.analyze_in, timeout=config.analyze_timeout)
