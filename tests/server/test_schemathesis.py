"""schemathesis sends what `/openapi.json` allows and what it does not, and finds no answer that is not documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.testing import LoopbackProvider
from tests.oracle import new_url, record
from tests.server.serving import TOKEN, serving, small

#: Requests of each phase and operation.
EXAMPLES, MOST_EXAMPLES = 8, 100
#: A valid request may be refused for what no schema says: a cursor that nobody gave, or an id that is in use. A wrong
#: one may be refused for its length before its values are looked at.
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "409", "413", "422", "429", "431"]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "410", "429"]
"""


@pytest.mark.timeout(300)
def test_nothing_is_found(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The seed is pytest's; `--all` sends more."""
    url, seed = new_url(tmp_path), pytestconfig.option.seed
    examples = MOST_EXAMPLES if pytestconfig.option.all else EXAMPLES
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    with ChatHistoryCallback(url) as history, history.conversation("c", user="anna"):
        record(history)
    headers = ["-H", f"Authorization: Bearer {TOKEN}"]
    with (
        LoopbackProvider("Hello there!") as provider,
        serving(url, {TOKEN: None}, models=[small(provider)]) as server,
    ):
        done = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json", *headers,
             "--checks", "all", "--mode", "all", "--phases", "coverage,fuzzing,stateful", "--no-color",
             "--max-examples", str(examples), "--seed", str(seed), "--request-timeout", "20"],
            cwd=tmp_path, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    assert f"Seed: {seed}" in done.stdout
