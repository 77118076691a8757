"""The benchmarks still run; their figures are for `make bench`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.oracle import ROOT


@pytest.mark.parametrize("section", ["commit", "saturated", "stalled"])
def test_a_section_runs(section: str) -> None:
    """Quickly, in processes of its own, without the packages that others are compared with."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", section, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "| what " in done.stdout
