"""Frameworks keep HTTP clients in caches and cycles: what a test leaves open must not be found by a later test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect the garbage of each test, so that its warnings about unclosed objects are its own."""
    yield
    gc.collect()
