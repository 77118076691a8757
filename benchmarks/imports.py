"""How long an import takes: processor time of a new process, less that of bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.harness import ROOT, Measured, Settings, best, environment, tell, values
from benchmarks.table import Row, each

TITLE = "Imports (milliseconds of processor time, above bare Python)"
TARGET = 0.2
#: The same as a user's program, which also makes the first recorder: it loads the database's libraries.
_MADE = """
import os, tempfile
from recorder import ChatHistoryCallback
with tempfile.TemporaryDirectory() as folder:
    ChatHistoryCallback("sqlite:///" + os.path.join(folder, "chat.db")).close().wait()
"""
_USED = "from recorder import ChatHistoryCallback"
CASES = {
    "import openai": "import openai",
    "import recorder": "import recorder",
    _USED: _USED,
    "the same, and the first one made and closed": _MADE,
    "from recorder.models import ChatOpenAI": "from recorder.models import ChatOpenAI",
}


def rows(settings: Settings) -> list[Row]:
    """One for each import."""
    found = measured(settings.size(5, 2))
    openai = best(found["import openai"], "cpu")
    lines = []
    for name, runs in found.items():
        ratio = best(runs, "cpu") / openai
        target = name in ("import recorder", _USED)
        lines.append(
            Row(
                name,
                f"{best(runs, 'cpu'):,.0f} ms (wall {best(runs, 'wall'):,.0f})",
                each(values(runs, "cpu"), ".0f"),
                "" if name == "import openai" else f"{ratio:.3f} x openai",
                f"under {TARGET} x" if target else "",
                ratio < TARGET if target else None,
            )
        )
    return lines


def measured(rounds: int) -> dict[str, list[Measured]]:
    """Each import by turns, after a first run that writes the .pyc files and is not counted."""
    for code in CASES.values():
        _start(code)
    found: dict[str, list[Measured]] = {name: [] for name in CASES}
    for number in range(rounds):
        tell(f"  round {number + 1} of {rounds}")
        bare = _start("pass")
        for name, code in CASES.items():
            found[name].append({key: value - bare[key] for key, value in _start(code).items()})
    return found


def _start(code: str) -> Measured:
    """Milliseconds of a new Python that runs `code`."""
    command: Sequence[str] = [sys.executable, "-c", code]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment()) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError(f"{code!r} failed")
    return {"cpu": (used.ru_utime + used.ru_stime) * 1e3, "wall": wall * 1e3}
