"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import postgres
from tests.genuine import FOLDER, MISSING, Stream, all_streams, chat_streams
from tests.oracle import new_url

# Continuous integration tries the same examples each time; new ones are found on people's machines, where the
# failing one is printed.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_report_header() -> str:
    """Say at the top whether the genuine streams take part."""
    if not all_streams():
        return f"{MISSING}; tests that need them are skipped"
    return f"genuine provider streams: {len(all_streams())} in {FOLDER}, {len(chat_streams())} of them chat"


@pytest.fixture(scope="session")
def streams() -> list[Stream]:
    """The genuine chat streams; the test is skipped where they are not there."""
    found = chat_streams()
    if not found:
        pytest.skip(MISSING)
    return found


@pytest.fixture
def warning_flags(pytestconfig: pytest.Config) -> list[str]:
    """What makes another Python as strict about warnings as these tests are: the filters of pyproject.toml."""
    return [part for line in pytestconfig.getini("filterwarnings") for part in ("-W", line)]


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A new Postgres database that has its tables."""
    url = postgres.new_database()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database that has its tables: the test runs on each kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return new_url(tmp_path)
