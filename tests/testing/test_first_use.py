"""The first use of a recording in a test run, which several processes agree on."""

from __future__ import annotations

from pathlib import Path

from recorder.testing.first_use import FirstUse
from tests.oracle import run_python, start_python

#: Takes the lock, says so, and holds it until a line comes or the process is killed.
_HOLDER = """
import sys
from pathlib import Path
from recorder.testing.first_use import FirstUse
with FirstUse(Path(sys.argv[1]), Path(sys.argv[2])).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""
_ASKS = """
import sys
from pathlib import Path
from recorder.testing.first_use import FirstUse
print(FirstUse(Path(sys.argv[1]), Path(sys.argv[2])).existed(None))
"""


def test_what_an_earlier_test_recorded_did_not_exist(tmp_path: Path) -> None:
    """Another process of the same run is told the same."""
    recording, folder = tmp_path / "shared.jsonl", tmp_path / "run"
    assert not FirstUse(folder, recording).existed(None)
    recording.write_text("recorded")
    assert not FirstUse(folder, recording).existed(None)
    assert run_python(_ASKS, folder, recording).stdout == "False\n"
    assert FirstUse(tmp_path / "next run", recording).existed(None)
    assert run_python(_ASKS, tmp_path / "next run", recording).stdout == "True\n"


def test_only_the_first_use_deletes(tmp_path: Path) -> None:
    """So with `all`, tests that share a file do not delete what the test before them recorded."""
    recording, folder = tmp_path / "shared.jsonl", tmp_path / "run"
    recording.write_text("old")
    assert not FirstUse(folder, recording).existed(recording.unlink)
    recording.write_text("new")
    assert not FirstUse(folder, recording).existed(recording.unlink)
    assert recording.read_text() == "new"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """One process holds the lock; it ends with the process."""
    folder, recording = tmp_path / "run", tmp_path / "shared.jsonl"
    holder = start_python(_HOLDER, folder, recording)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = start_python(_HOLDER, folder, recording)
    holder.kill()
    holder.communicate()
    assert waiting.communicate("\n")[0] == "held\n"
