"""The sections of the benchmarks run without an error; their figures come from `make bench`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.oracle import ROOT


@pytest.mark.parametrize("section", ["commit", "saturated", "stalled"])
def test_a_benchmark_section_runs(section: str) -> None:
    """Each section ends with exit code 0 and prints a table, with `--quick` and without the packages of `bench`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", section, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "| what " in done.stdout
