"""Options, fixtures and hooks of pytest that all tests share."""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from hypothesis import settings

from tests import pgbouncer, postgres, selection
from tests.genuine import FOLDER, MISSING, Stream, all_streams, chat_streams
from tests.oracle import new_url

# Under continuous integration Hypothesis tries the same examples in each run. Elsewhere it tries new ones, and prints
# an example that fails.
_ALWAYS_THE_SAME = bool(os.environ.get("CI"))
settings.register_profile("all", derandomize=_ALWAYS_THE_SAME)
settings.register_profile("sample", derandomize=_ALWAYS_THE_SAME, max_examples=selection.EXAMPLES)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose which tests are run."""
    group = parser.getgroup("recorder's own tests")
    group.addoption("--fast", action="store_true", help="the quick tests only, for between two edits")
    group.addoption("--all", action="store_true", help="every cell of every matrix, and --network")
    group.addoption("--network", action="store_true", help="also the tests that install packages")
    group.addoption("--seed", type=int, help="draws the sample of each matrix; random unless given")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed once; a worker process of pytest-xdist uses the seed of the process that started it."""
    config.addinivalue_line(
        "markers", "matrix: a test of many cells, of which a sample is run unless --all is given"
    )
    config.addinivalue_line("markers", "network: a test that installs packages; run with --network or --all")
    _name_connections_by_test()
    if config.option.seed is None:
        config.option.seed = getattr(config, "workerinput", {}).get("seed", random.randrange(10**6))


def _name_connections_by_test() -> None:
    """Let the driver's SQLite connections say in which test they were opened.

    SQLAlchemy warns of a connection that was never closed when it is garbage-collected, often in a later test.
    """
    driver: Any = aiosqlite.Connection
    initialize = driver.__init__

    def opened(self: Any, *given: Any, **options: Any) -> None:
        initialize(self, *given, **options)
        self.test = os.environ.get("PYTEST_CURRENT_TEST", "no test")

    driver.__init__ = opened
    driver.__repr__ = lambda self: f"<SQLite connection opened in {self.test}>"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Choose how many examples Hypothesis tries, before the tests are imported and copy the number."""
    settings.load_profile("all" if session.config.option.all else "sample")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the seed to a worker process of pytest-xdist."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Print in the first lines which tests are run, and whether genuine streams, pgbouncer and Chromium are there."""
    options = config.option
    matrices = "whole" if options.all else f"sampled with --seed {options.seed}"
    there = f"{len(all_streams())} in {FOLDER}, {len(chat_streams())} of them chat"
    return [
        f"tests: {'the fast ones' if options.fast else 'all'}; matrices: {matrices}",
        f"genuine provider streams: {there if all_streams() else MISSING}",
        f"pgbouncer: {pgbouncer.PROGRAM or 'not installed'}; chromium: {shutil.which('chromium') or 'not installed'}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that the options leave out."""
    options = config.option
    left_out = set()
    if not (options.all or options.network):
        left_out |= {item for item in items if item.get_closest_marker("network")}
    if options.fast:
        left_out |= {item for item in items if selection.is_slow(item)}
        left_out |= selection.left_out_cells(
            [item for item in items if item not in left_out],
            options.seed,
            selection.FAST_SHARE,
            selection.FAST_LEAST,
            every_test=True,
        )
    elif not options.all:
        left_out |= selection.left_out_cells(items, options.seed, selection.SHARE, selection.LEAST)
        left_out |= selection.left_out_slow_cells(
            [item for item in items if item not in left_out], options.seed
        )
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude what was imported from garbage collection; a collection that a test asks for takes long otherwise."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the tests that were skipped under continuous integration, because they fail the run."""
    if left_out := _forbidden_skips(terminalreporter):
        terminalreporter.section("left out under continuous integration, where that is a failure", red=True)
        for name in left_out:
            terminalreporter.line(name)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a test was skipped under continuous integration."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.exitstatus == pytest.ExitCode.OK and _forbidden_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _forbidden_skips(reporter: Any) -> list[str]:
    """Return the tests that were skipped although `CI` is set, except those that `RECORDER_TEST_MAY_SKIP` allows."""
    if not os.environ.get("CI") or reporter is None:
        return []
    tolerated = os.environ.get("RECORDER_TEST_MAY_SKIP")
    skipped = [(report.nodeid, str(report.longrepr)) for report in reporter.stats.get("skipped", ())]
    return [f"{name}: {reason}" for name, reason in skipped if not (tolerated and tolerated in reason)]


@pytest.fixture(scope="session")
def streams() -> list[Stream]:
    """Return the genuine chat streams; a test that uses them is skipped when their folder is missing."""
    found = chat_streams()
    if not found:
        pytest.skip(MISSING)
    return found


@pytest.fixture
def warning_flags(pytestconfig: pytest.Config) -> list[str]:
    """Return options with which another Python treats warnings as these tests do (see pyproject.toml)."""
    return [part for line in pytestconfig.getini("filterwarnings") for part in ("-W", line)]


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """Yield the URL of a new Postgres database that has its tables; it is dropped afterwards."""
    url = postgres.new_database()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new database that has its tables; the test runs once on SQLite and once on Postgres."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return new_url(tmp_path)
