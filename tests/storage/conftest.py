"""Fixtures for the tests of the databases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="pooler") as path:
        yield Path(path)


@pytest.fixture
def without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits at most 1 ms between two attempts."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)
