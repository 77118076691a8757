"""Whether a process that records still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta

from recorder.clock import now
from recorder.liveness import is_dead
from recorder.records import Producer


def producer(pid: int, *, host: str = "", silent: float = 0) -> Producer:
    """One that was heard of so many seconds ago."""
    moment = now() - timedelta(seconds=silent)
    return Producer("01920000-0000-7000-8000-000000000001", host or socket.gethostname(), pid, moment, moment)


def test_who_speaks_lives() -> None:
    """And who has been silent for too long does not, wherever that is."""
    assert not is_dead(producer(os.getpid()), now(), 60)
    assert not is_dead(producer(1, host="elsewhere", silent=59), now(), 60)
    assert is_dead(producer(1, host="elsewhere", silent=61), now(), 60)
    assert is_dead(producer(os.getpid(), silent=61), now(), 60)


def test_a_process_of_this_machine_that_is_gone() -> None:
    """Nobody waits for its silence; not even where its parent has not looked at its end yet."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_dead(producer(child.pid), now(), 60)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(producer(child.pid), now(), 60)
    child.communicate()
    assert is_dead(producer(child.pid), now(), 60)
