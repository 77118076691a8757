"""Hosts are chosen by patterns."""

from __future__ import annotations

import pytest

from recorder import ConfigError
from recorder.instrumentation.hosts import ALL_HOSTS, Hosts


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (ALL_HOSTS, True),
        (Hosts(["api.openai.com"]), True),
        (Hosts(["*.OpenAI.com", "other.org"]), True),
        (Hosts(["openai.com"]), False),
        (Hosts([], ["api.*"]), False),
        (Hosts(["*"], ["api.openai.com"]), False),
    ],
)
def test_a_host_is_included_or_not(hosts: Hosts, expected: bool) -> None:
    """Excluded patterns win, and case does not matter."""
    assert hosts.include("api.openai.com") is expected


def test_patterns_are_a_list_of_texts() -> None:
    """A single text would be read letter by letter."""
    for hosts in ("api.openai.com", [3]):
        with pytest.raises(ConfigError, match="pass a list of host names"):
            Hosts(hosts)  # type: ignore[arg-type]
