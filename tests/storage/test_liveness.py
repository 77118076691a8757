"""Whether the process of a producer is alive."""

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
    """A producer whose last heartbeat was `silent` seconds ago."""
    moment = now() - timedelta(seconds=silent)
    process = process or f"{NUMBERS}/{started}"
    id = "01920000-0000-7000-8000-000000000001"
    return Producer(id, host or socket.gethostname(), pid, moment, moment, process)


#: The boot and the namespace of this process, and when it started.
NUMBERS, _, STARTED = this_process().rpartition("/")


def test_a_producer_is_dead_after_the_limit_without_a_heartbeat() -> None:
    """This holds for a process on this machine and on another one."""
    assert not is_dead(producer(os.getpid()), now(), 60)
    assert not is_dead(producer(1, host="elsewhere", silent=59), now(), 60)
    assert is_dead(producer(1, host="elsewhere", silent=61), now(), 60)
    assert is_dead(producer(os.getpid(), silent=61), now(), 60)


def test_a_producer_is_dead_at_once_when_its_process_on_this_machine_is_gone() -> None:
    """This holds also while the process is a zombie."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_dead(producer(child.pid), now(), 60)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(producer(child.pid), now(), 60)
    child.communicate()
    assert is_dead(producer(child.pid), now(), 60)


def test_a_producer_is_dead_when_another_process_has_its_number() -> None:
    """The time at which the process started tells the two apart."""
    assert not is_dead(producer(os.getpid(), started=STARTED), now(), 60)
    assert not is_dead(producer(os.getpid(), started="-"), now(), 60)  # the start is not known
    if STARTED != "-":
        assert is_dead(producer(os.getpid(), started=str(int(STARTED) + 1)), now(), 60)


@pytest.mark.parametrize("process", ["other boot/1/2", f"{NUMBERS}1/2", "", "older"])
def test_a_process_number_of_another_boot_or_namespace_is_not_looked_up(process: str) -> None:
    """Only the time since its last heartbeat counts, also where an older version stored no namespace."""
    unused_pid = 2**22 + 1
    assert is_dead(producer(unused_pid), now(), 60)
    assert not is_dead(producer(unused_pid, process=process or "/"), now(), 60)
    assert is_dead(producer(unused_pid, process=process or "/", silent=61), now(), 60)
    unknown = replace(producer(unused_pid), process=None)
    assert not is_dead(unknown, now(), 60)


@pytest.mark.skipif(STARTED == "-", reason="this system does not say when a process started")
def test_a_process_in_a_container_has_numbers_of_its_own() -> None:
    """The container has the name of this host, and its process is not looked up among those of the host."""
    code = "from recorder.storage.liveness import this_process; print(this_process())"
    command = ["unshare", "--user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    inside = subprocess.run(command, capture_output=True, text=True, check=False)
    if inside.returncode:
        pytest.skip(f"no namespaces here: {inside.stderr.strip()}")
    there = producer(2, process=inside.stdout.strip())
    assert inside.stdout.strip().rpartition("/")[0] != NUMBERS
    assert not is_dead(there, now(), 60)
