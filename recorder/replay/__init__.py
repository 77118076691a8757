"""Replay: what was recorded comes back as if it were live, into whatever was listening."""

from recorder.replay.errors import Interrupted, ReplayedError
from recorder.replay.http.not_recorded import NotRecorded
from recorder.replay.replay import Replay

__all__ = ["Interrupted", "NotRecorded", "Replay", "ReplayedError"]
