"""Whether a process that records still lives, as far as anybody can tell."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta

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
    return True
