"""LangChain's standard tests of chat models pass on `ReplayChatModel` (`standard_tests.py`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.instrumentation.environments import python_of
from tests.oracle import ROOT

#: In place of the options in pyproject.toml: the marks of LangChain's tests are those of plugins that are left out.
OPTIONS = "addopts=-p no:asyncio -p no:recording -p no:langsmith_plugin"


@pytest.mark.network
@pytest.mark.timeout(900)
def test_langchains_standard_tests_pass(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each is run twice: recorded once, then replayed without a provider. One is expected to fail."""
    python = python_of("standard", Path(tmp_path_factory.getbasetemp().parent))
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-o",
        OPTIONS,
        "tests/integrations/langchain/standard_tests.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = int(done.stdout.splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed > 40
