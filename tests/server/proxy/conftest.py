"""Closes the clients of the tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.proxy.calls import open_clients


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while open_clients:
        open_clients.pop().close()
