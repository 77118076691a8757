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
    """Whether it has ended, and its parent has not looked yet; told by Linux only.

    All of it: of a process that is killed one thread may be in the middle of a COMMIT when the first is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    said = dict(line.partition(":")[::2] for line in lines)
    return said.get("State", "").strip().startswith("Z") and int(said.get("Threads", "1")) <= 1
