"""`tests/selection.py` and `tests/conftest.py` choose the tests of a run, and a skipped test is always reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.oracle import ROOT
from tests.selection import SLOW_FILES, SLOW_LEAST, left_out_slow_cells

pytest_plugins = ["pytester"]
#: The tests of several processes start pytest, which takes long beside other work.
pytestmark = pytest.mark.timeout(180)

CONFTEST = """
from tests.conftest import (
    pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_configure_node, pytest_report_header,
    pytest_sessionfinish, pytest_terminal_summary,
)
"""
SUITE = """
import os
import pytest

@pytest.mark.matrix
@pytest.mark.parametrize("number", range(100))
def test_cell(number):
    pass

@pytest.mark.parametrize("number", range(9))
def test_with_parameters(number):
    pass

@pytest.mark.network
def test_of_the_network():
    pass

def test_that_is_skipped():
    if os.environ.get("AWAY"):
        pytest.skip("the moon is away")

def test_with_a_server(postgres_url):
    pass

@pytest.fixture
def postgres_url():
    return ""
"""


class Suite:
    """A small suite of tests in a folder of its own, which uses the selection of recorder's tests."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_suite=SUITE)

    def run(self, *options: str) -> pytest.RunResult:
        """Run pytest on the small suite with these options, in this process, which has imported everything already."""
        return self._pytester.runpytest_inprocess(
            "-p", "no:cacheprovider", "-p", "no:langsmith_plugin", *options
        )

    def cells(self, *options: str) -> list[str]:
        """Return the cells of the matrix that pytest would run."""
        lines = self.run("--collect-only", "-q", *options).outlines
        return [line for line in lines if "test_cell[" in line]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return the small suite, with the variables of continuous integration unset."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("CI", "RECORDER_TEST_MAY_SKIP", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    return Suite(pytester)


def test_a_matrix_is_sampled_by_a_seed(suite: Suite) -> None:
    """Equal seeds choose the same cells, another seed chooses others, and `--all` chooses every cell."""
    first = suite.cells("--seed", "1")
    assert len(first) == 15
    assert suite.cells("--seed", "1") == first
    assert suite.cells("--seed", "2") != first
    assert len(suite.cells("--all")) == 100
    assert len(suite.cells("--fast", "--seed", "1")) == 5


def test_a_cell_that_is_named_is_run(suite: Suite) -> None:
    """A cell that is named on the command line is run, whatever the seed is."""
    assert len(suite.cells("--seed", "1", "test_suite.py::test_cell[7]")) == 1


def test_several_processes_use_the_same_sample(suite: Suite) -> None:
    """Worker processes use one seed, which pytest prints in its first lines."""
    result = suite.run("--numprocesses", "2")
    result.assert_outcomes(passed=26)
    result.stdout.re_match_lines([r"tests: all; matrices: sampled with --seed \d+"])


def test_the_fast_tests_need_no_server(suite: Suite) -> None:
    """`--fast` deselects the tests that need Postgres or the network."""
    suite.run("--fast").assert_outcomes(passed=9, deselected=103)


def test_the_fast_tests_have_few_cells_of_each_test(suite: Suite) -> None:
    """`--fast` runs three cells of a test with parameters that is no matrix; without it each cell is run."""
    for options, expected in ((["--fast"], 3), ([], 9)):
        lines = suite.run("--collect-only", "-q", *options).outlines
        assert len([line for line in lines if "test_with_parameters[" in line]) == expected


def test_network_tests_are_run_with_network_or_all(suite: Suite) -> None:
    """Tests with the mark `network` are run with `--network` and with `--all`."""
    suite.run("--network").assert_outcomes(passed=27, deselected=85)
    suite.run("--all").assert_outcomes(passed=112)


def test_a_skipped_test_fails_continuous_integration(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `CI` is set, a skipped test fails the run, unless `RECORDER_TEST_MAY_SKIP` is part of its reason."""
    monkeypatch.setenv("AWAY", "1")
    assert suite.run().ret == 0
    monkeypatch.setenv("CI", "true")
    result = suite.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_that_is_skipped*the moon is away*"])
    assert suite.run("--numprocesses", "2").ret == 1
    monkeypatch.setenv("RECORDER_TEST_MAY_SKIP", "the moon")
    assert suite.run().ret == 0


def test_every_slow_file_exists() -> None:
    """A file that was renamed would be run by `--fast`, without a word."""
    assert [path.name for path in SLOW_FILES if not path.exists()] == []


class CollectedFake:
    """A collected cell of a test with parameters."""

    def __init__(self, path: Path, cell: int) -> None:
        self.path, self.nodeid = path, f"{path.name}::test_cell[{cell}]"


def test_slow_files_run_a_part_of_their_cells() -> None:
    """Each test keeps some cells; checks of modules and pages, and files that are not slow, keep all."""
    floors = next(path for path in SLOW_FILES if path.stem == "test_floors")
    slow = next(path for path in sorted(SLOW_FILES) if path.stem == "test_forks")
    quick = slow.with_name("test_quick.py")
    items: list[Any] = [CollectedFake(path, cell) for path in (floors, slow, quick) for cell in range(20)]
    left_out = left_out_slow_cells(items, seed=5)
    assert {item.path for item in left_out} == {slow}
    assert len(left_out) == 14
    assert left_out_slow_cells(items[20 : 20 + SLOW_LEAST], seed=5) == set()
