"""`recorder redact` says what it replaced, what is left, and what was wrong with the patterns."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from tests.oracle import new_url, record, sql


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a database with one run that has an address and a number."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history, history.conversation("c1"):
        record(history, "I am joe@example.com, ACME-123456", reply="Hello joe@example.com")
    return url


def run(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    found = CliRunner().invoke(app, ["redact", *arguments])
    return found.exit_code, found.output


def test_a_dry_run_counts(url: str) -> None:
    """It prints what would be replaced, and changes nothing."""
    before = sql(url, "SELECT content FROM messages ORDER BY position")
    code, printed = run("--url", url, "-p", "email", "-p", r"ACME-\d{6}", "--dry-run")
    assert (code, "would replace: email 3" in printed) == (0, True)
    assert sql(url, "SELECT content FROM messages ORDER BY position") == before


def test_it_replaces_names_and_patterns(url: str) -> None:
    """It prints what it replaced; a second call finds nothing."""
    arguments = ("--url", url, "--pattern", "email", "--pattern", r"ACME-\d{6}")
    code, printed = run(*arguments)
    assert (code, printed.splitlines()[0].endswith("replaced: email 3, pattern 1.")) == (0, True)
    assert sql(url, "SELECT content FROM messages ORDER BY position") == [
        ("I am [email], [pattern]",),
        ("Hello [email]",),
    ]
    assert "replaced: nothing" in run(*arguments)[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-p", "(a"), "is no regular expression"),
        (("-p", "x*"), "matches the empty text"),
        (("--url", "sqlite:///there-is-none.db", "-p", "email"), "There is no file there-is-none.db"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: tuple[str, ...], reason: str, url: str) -> None:
    """A wrong pattern and a missing file are errors for people."""
    given = arguments if "--url" in arguments else ("--url", url, *arguments)
    code, printed = run(*given)
    assert code != 0
    assert reason in printed


def test_a_pattern_that_is_almost_a_name_is_reported(url: str) -> None:
    """It is used as a regular expression, and a line names what was meant."""
    code, printed = run("--url", url, "--pattern", "emails", "--dry-run")
    assert code == 0
    assert "'emails' is used as a regular expression; the name is 'email'" in printed


def test_a_missing_file_is_the_same_error_as_elsewhere() -> None:
    """Redacting, also with `--dry-run`, and reading have one sentence for it."""
    for option in ((), ("--dry-run",)):
        code, printed = run("--url", "sqlite:///there-is-none.db", "-p", "email", *option)
        assert (code, "There is no file there-is-none.db; record something" in printed) == (1, True)
