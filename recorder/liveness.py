"""Whether a process that records still lives, as far as anybody can tell."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path

from recorder.records import Producer


def is_dead(producer: Producer, moment: datetime, silence: float) -> bool:
    """Silent for `silence` seconds, or a process of this machine that is gone."""
    if producer.heartbeat_at < moment - timedelta(seconds=silence):
        return True
    return producer.host == socket.gethostname() and not _is_alive(producer.pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended, and its parent has not looked yet; told by Linux only."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return said.rpartition(")")[2].split()[:1] == ["Z"]
