"""Chooses the tests of a run of pytest: all with a sample of each matrix, only the fast ones, or all."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

#: Of a sampled matrix this share of the cells is run, but at least `LEAST` cells.
SHARE, LEAST = 0.15, 6
#: The same two numbers for `--fast`, which samples every test with parameters, also one that is no matrix.
FAST_SHARE, FAST_LEAST = 0.05, 3
#: The same two numbers for tests with parameters in slow files.
SLOW_SHARE, SLOW_LEAST = 0.3, 2
#: How many examples Hypothesis tries of each property; with `--all` as many as it does by default, 100.
EXAMPLES = 30

#: Files whose tests start processes, servers or terminals, or wait for time to pass; `--fast` leaves them out.
_SLOW = """
.: benchmarks examples faults floors hostile in_time readme selection
chains: conversation_chain langchain_names like_langchain_chains
analysis: feed live
cli: chat commands costs line_editing live_runs passwords program redact replay run serve transfer
core: at_exit greenlets
costs: budget_watch fill live_estimates run_pricing
export: export format
export/otel: resend
instrumentation: libraries
integrations/otel: exporter exporter_failures langgraph
models: clients like_langchain like_langchain_anthropic like_langchain_responses like_langchain_structure
models: responses_model
recording: additions committer deferred_store first_calls_after_fork forks kept_apart prefork_servers recorder
recording: survival writer
replay: follow reader_thread replayed_model
runs: collected_streams open_streams
storage: indexes migrate poolers postgres revisions store
server: access app authorization chat conversations docs export follower health http_limits hub metrics page page_files
server: page_safety reconnects request_log schemathesis stopping streams
server/proxy: byte_identity hostile_requests recording_proxy replay_endpoints run_response
testing: first_use provider pytest_plugin scratch_database
upkeep: stored_analysis
wire: adds_up
"""
#: Slow files whose parameters are pages, modules and examples: each is a check of its own.
_EVERY_CELL = frozenset(("test_benchmarks", "test_examples", "test_floors", "test_readme"))
_TESTS = Path(__file__).resolve().parent
SLOW_FILES = frozenset(
    _TESTS / folder / f"test_{name}.py"
    for folder, _, names in (line.partition(": ") for line in _SLOW.strip().splitlines())
    for name in names.split()
)


def left_out_cells(
    items: Iterable[pytest.Item], seed: int, share: float, least: int, *, every_test: bool = False
) -> set[pytest.Item]:
    """Return the cells that are not run, of matrices or of every test; equal seeds give equal cells everywhere."""
    matrices: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if every_test or item.get_closest_marker("matrix"):
            matrices[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for name, cells in matrices.items():
        size = max(least, round(len(cells) * share))
        if size < len(cells):
            left_out.update(random.Random(f"{seed} {name}").sample(cells, len(cells) - size))
    return left_out


def left_out_slow_cells(items: Iterable[pytest.Item], seed: int) -> set[pytest.Item]:
    """Return the cells that are not run of tests in slow files; every check of the pages and modules is run."""
    slow = [item for item in items if item.path in SLOW_FILES and item.path.stem not in _EVERY_CELL]
    return left_out_cells(slow, seed, SLOW_SHARE, SLOW_LEAST, every_test=True)


def is_slow(item: pytest.Item) -> bool:
    """Return whether a test needs Postgres or belongs to one of the slow files."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    on_postgres = "postgres_url" in fixtures or "postgres" in item.nodeid.partition("::")[2]
    return item.path in SLOW_FILES or on_postgres
