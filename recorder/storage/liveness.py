"""Whether a process that records still lives, as far as anybody can tell."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from recorder.storage.rows import Producer

#: What stands for a part that this system does not tell.
_UNKNOWN = "-"


def is_dead(producer: Producer, moment: datetime, silence: float) -> bool:
    """Silent for `silence` seconds, or a process whose number can be looked up here and that is gone."""
    if producer.heartbeat_at < moment - timedelta(seconds=silence):
        return True
    numbers, _, start = (producer.process or "").rpartition("/")
    if producer.host != socket.gethostname() or numbers != _numbers():
        return False  # its number would be another process here
    return not _is_alive(producer.pid) or _is_another(start, _start_of(producer.pid))


def this_process() -> str:
    """What tells this process from all others with its host name and number, now and later: where numbers like its
    own belong to, and when it started."""
    return f"{_numbers()}/{_start_of(os.getpid())}"


@cache
def _numbers() -> str:
    """Whose numbers the processes here have: this boot of the machine, and of a container its namespace."""
    boot = _UNKNOWN
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{boot}/{_UNKNOWN}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_numbers.cache_clear)  # it may be in a namespace of its own


def _start_of(pid: int) -> str:
    """When the process started, in ticks since the boot."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _UNKNOWN
    # Its name, in brackets, may hold blanks and brackets. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    return found.rpartition(")")[2].split()[19]


def _is_another(start: str, found: str) -> bool:
    """Whether the number was given to another process meanwhile, as far as both times are known."""
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
    """Whether it has ended, and its parent has not looked yet; told by Linux only.

    All of it: of a process that is killed one thread may be in the middle of a COMMIT when the first is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    said = dict(line.partition(":")[::2] for line in lines)
    return said.get("State", "").strip().startswith("Z") and int(said.get("Threads", "1")) <= 1
