"""Whether a process that records still lives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from recorder.core.clock import now
from recorder.storage.liveness import is_dead, this_process
from recorder.storage.rows import Producer


def producer(
    pid: int, *, host: str = "", silent: float = 0, process: str | None = None, started: str = "-"
) -> Producer:
    """One that was heard of so many seconds ago."""
    moment = now() - timedelta(seconds=silent)
    process = process or f"{NUMBERS}/{started}"
    id = "01920000-0000-7000-8000-000000000001"
    return Producer(id, host or socket.gethostname(), pid, moment, moment, process)


#: This boot and this namespace, and when this process started.
NUMBERS, _, STARTED = this_process().rpartition("/")


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


def test_a_number_that_another_process_has_now() -> None:
    """Numbers come again: the time at which the process started tells."""
    assert not is_dead(producer(os.getpid(), started=STARTED), now(), 60)
    assert not is_dead(producer(os.getpid(), started="-"), now(), 60)  # as far as it is known
    if STARTED != "-":
        assert is_dead(producer(os.getpid(), started=str(int(STARTED) + 1)), now(), 60)


@pytest.mark.parametrize("process", ["other boot/1/2", f"{NUMBERS}1/2", "", "older"])
def test_a_number_of_elsewhere_says_nothing(process: str) -> None:
    """Of another boot or namespace, with this host's name: only its silence tells, and so where an older version did
    not say where it was."""
    nobody = 2**22 + 1
    assert is_dead(producer(nobody), now(), 60)
    assert not is_dead(producer(nobody, process=process or "/"), now(), 60)
    assert is_dead(producer(nobody, process=process or "/", silent=61), now(), 60)
    unknown = replace(producer(nobody), process=None)
    assert not is_dead(unknown, now(), 60)


@pytest.mark.skipif(STARTED == "-", reason="this system does not tell")
def test_a_process_in_a_namespace_of_its_own() -> None:
    """A container with this host's name: its numbers are others, and so it is not mistaken for one of here."""
    code = "from recorder.storage.liveness import this_process; print(this_process())"
    command = ["unshare", "--user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    inside = subprocess.run(command, capture_output=True, text=True, check=False)
    if inside.returncode:
        pytest.skip(f"no namespaces here: {inside.stderr.strip()}")
    there = producer(2, process=inside.stdout.strip())
    assert inside.stdout.strip().rpartition("/")[0] != NUMBERS
    assert not is_dead(there, now(), 60)
