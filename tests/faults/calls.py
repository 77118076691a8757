"""Kills and errors inside system calls, by strace: the process never returns from the Nth call, or the call fails."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recorder.chat_history_callback import ChatHistoryCallback
from tests.faults.campaign import SQLITE, Fault, LeftOut, Round
from tests.faults.kills import recover
from tests.faults.producer import Speaker, child, note, turns
from tests.oracle import Verdict, hasty, judge

#: System calls with which the driver of SQLite writes a file, and the driver of Postgres sends and receives.
OF_A_FILE = ("pwrite64", "fdatasync", "fsync", "openat", "unlink", "ftruncate", "fcntl")
OF_A_SOCKET = ("sendto", "recvfrom", "epoll_wait", "futex")
#: System calls and the errors with which a disk lets them fail.
ERRORS = (("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO"), ("ftruncate", "EIO"))


def stream(report: Callable[[str], Any], url: str, first: int, seed: str, most_turns: int) -> None:
    """Wait for the tracer, record so many turns unless the process is killed, and close."""
    _wait_for_tracer()
    with hasty():
        speaker = Speaker(ChatHistoryCallback(url, flush_interval=0), first, report)
        for _, _ in zip(turns(speaker, random.Random(seed), most=20), range(most_turns), strict=False):
            speaker.acknowledge()
        speaker.close()


def _wait_for_tracer() -> None:
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        time.sleep(0.001)


@contextmanager
def traced(pid: int, call: str, what: str) -> Iterator[None]:
    """Inside, strace injects `what` into these calls of all threads of a process."""
    if shutil.which("strace") is None:
        raise LeftOut("strace is not installed")
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        tracer.kill()  # the traced process goes on
        _, stderr = tracer.communicate(timeout=30)
    if "Operation not permitted" in stderr:
        raise LeftOut(f"strace may not attach here: {stderr.strip()}")


def kill_inside(at: Round) -> Verdict:
    """Three processes record one after another, and each is killed as it enters a call for the Nth time."""
    for generation in range(3):
        call = at.chance.choice(OF_A_FILE if at.is_sqlite else OF_A_SOCKET)
        number = at.chance.randrange(1, 80)
        arguments = at.url, at.number(1000 * generation), f"{at.seed} {generation}", 60
        with child(stream, *arguments) as victim, traced(victim.pid, call, f"signal=SIGKILL:when={number}"):
            victim.read(30)
            victim.kill()
            note(at.ledger, victim.report)
    recover(at.url)
    return judge(at.url, at.ledger)


def fail_inside(at: Round) -> Verdict:
    """The disk is full or broken for some calls, then works again, and nothing is lost."""
    call, error = at.chance.choice(ERRORS)
    # The tracer counts the calls of each thread. The first ones open the file, which would fail each time.
    number = at.chance.randrange(20, 60)
    what = f"error={error}:when={number}..{number + at.chance.randrange(10)}"
    with child(stream, at.url, at.number(0), str(at.seed), 30) as producer:
        with traced(producer.pid, call, what):
            producer.read(2)
        failure = producer.end()
        note(at.ledger, producer.report)
    verdict = judge(at.url, at.ledger)
    if failure:
        verdict.breaches.append(f"{call} with {what}: {failure}")
    return verdict


FAULTS = [
    Fault("calls", "SIGKILL inside the Nth system call", kill_inside),
    Fault("disk", "disk full or broken at the Nth call", fail_inside, (SQLITE,)),
]
