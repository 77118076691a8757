"""A fork waits for an import on another thread."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, sys, threading, types
from recorder.core.late_imports import late_imports

begun, never = threading.Event(), threading.Event()

def load():
    with late_imports():
        module = sys.modules["half"] = types.ModuleType("half")
        begun.set()
        never.wait(0.2)  # without the lock the fork would come now
        module.rest = "rest"

thread = threading.Thread(target=load)
thread.start()
begun.wait()
if (pid := os.fork()) == 0:
    with late_imports():
        os._exit(0 if sys.modules["half"].rest == "rest" else 1)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_child_has_whole_modules() -> None:
    """And it can import more."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
