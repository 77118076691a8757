"""Decides whether a producer, a process that records, has died."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from recorder.storage.rows import Producer

#: Stands for a value that this system does not provide.
_UNKNOWN = "-"


def is_dead(producer: Producer, moment: datetime, silence: float) -> bool:
    """Whether it sent no heartbeat for `silence` seconds, or is a process of this machine that has ended."""
    if producer.heartbeat_at < moment - timedelta(seconds=silence):
        return True
    # A process of another host, boot or pid namespace is left out: its pid means nothing here.
    return _is_here(producer) and not runs_here(producer)


def runs_here(producer: Producer) -> bool:
    """Whether its process runs on this machine now, whatever its heartbeat says; False where that is not known."""
    start = (producer.process or "").rpartition("/")[2]
    return _is_here(producer) and _is_alive(producer.pid) and not _is_another(start, _start_of(producer.pid))


def _is_here(producer: Producer) -> bool:
    pid_space = (producer.process or "").rpartition("/")[0]
    return producer.host == socket.gethostname() and pid_space == _pid_space()


def this_process() -> str:
    """Distinguishes this process from others with the same host name and pid: "boot id/pid namespace/start time"."""
    return f"{_pid_space()}/{_start_of(os.getpid())}"


@cache
def _pid_space() -> str:
    """The range in which pids are unique: the boot of the machine and the pid namespace of a container."""
    boot = _UNKNOWN
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{boot}/{_UNKNOWN}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pid_space.cache_clear)  # the child may be in a new namespace


def _start_of(pid: int) -> str:
    """The start time of the process (clock ticks since boot)."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _UNKNOWN
    # The name, in brackets, may contain spaces and brackets. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    return found.rpartition(")")[2].split()[19]


def _is_another(start: str, found: str) -> bool:
    """Whether another process has the pid now; False if a start time is unknown."""
    return start != found and _UNKNOWN not in (start, found)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether the process has ended and its parent has not waited for it yet. Known on Linux only.

    A zombie with more than one thread counts as alive: when a process is killed, its main thread may end first, while
    another thread is still inside a COMMIT.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    status = dict(line.partition(":")[::2] for line in lines)
    return status.get("State", "").strip().startswith("Z") and int(status.get("Threads", "1")) <= 1
