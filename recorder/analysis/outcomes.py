"""What became of one text that an analyzer got."""

from __future__ import annotations

from typing import NamedTuple

from recorder.analysis.evaluation import Evaluation


class Failed(NamedTuple):
    """The analyzer failed. Plain texts, because they may come from another process."""

    error: str
    traceback: str = ""


class Skipped(NamedTuple):
    """The analyzer was not called."""

    reason: str


Outcome = Evaluation | Failed | Skipped | None
