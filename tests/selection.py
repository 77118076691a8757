"""Which tests take part in a run: the usual ones with a sample of each matrix, the fast ones, or all of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

import pytest

#: How many cells of a matrix are run where they are sampled: this share of them, and at least so many.
SHARE, LEAST = 0.25, 6
#: The same for the fast tests.
FAST_SHARE, FAST_LEAST = 0.05, 2

#: Their tests start processes, servers or terminals, or wait for time to pass; `--fast` leaves them out.
_SLOW = """
additions benchmarks cli clients collector examples exits export faults floors follow forks greenlets hostile in_time
like_langchain like_langchain_anthropic migrate moving open_streams playing poolers portable postgres pytest_plugin
readme recorder replayed_model revisions selection store storing survival talk testing writer
"""
SLOW_FILES = frozenset(f"test_{name}.py" for name in _SLOW.split())


def sampled(items: Iterable[pytest.Item], seed: int, share: float, least: int) -> set[pytest.Item]:
    """The cells of matrices that are left out; the same for the same seed, in every process."""
    matrices: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("matrix"):
            matrices[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for name, cells in matrices.items():
        size = max(least, round(len(cells) * share))
        if size < len(cells):
            left_out.update(random.Random(f"{seed} {name}").sample(cells, len(cells) - size))
    return left_out


def is_slow(item: pytest.Item) -> bool:
    """Whether a test needs a server, or stands among those that take long."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    on_postgres = "postgres_url" in fixtures or "postgres" in item.nodeid.partition("::")[2]
    return item.path.name in SLOW_FILES or on_postgres
