"""`recorder sql`: where its statement comes from, and how its rows are printed in a pipe and as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.messages import HumanMessage
from tests.cli.test_commands import cli, process
from tests.oracle import new_url, record
from tests.terminal import Terminal

STATEMENT = "SELECT role, content FROM messages ORDER BY position;\n"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a database with a question, and an answer of several lines."""
    url = new_url(tmp_path, "chat_history.db")
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage("Sing!"), reply='La, "la"\nlo')
    return url


def from_stdin(url: str, *arguments: str) -> Result:
    """Run `recorder sql` in pipes, with the statement on stdin."""
    return CliRunner().invoke(app, ["sql", *arguments, "--url", url], input=STATEMENT, env={"COLUMNS": None})


def test_rows_in_a_pipe_are_not_padded(url: str, tmp_path: Path) -> None:
    """A line has its cells between tabs, however long the longest cell is."""
    done = process("sql", f"SELECT 1 AS a, 'b' AS b UNION SELECT 2, '{'b' * 300}'", folder=tmp_path)
    assert done.stdout == f"a\tb\n1\tb\n2\t{'b' * 300}\n"


def test_facts_in_a_pipe_are_not_padded(url: str, tmp_path: Path) -> None:
    """The shorter values of a run and of the totals end where their text ends."""
    for command in ("show", "stats"):
        lines = process(command, folder=tmp_path).stdout.splitlines()
        assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize("arguments", [["-"], ["--file", "-"], []], ids=str)
def test_a_statement_is_read_from_stdin(url: str, arguments: list[str]) -> None:
    """It may end in a semicolon."""
    assert from_stdin(url, *arguments).stdout == 'role\tcontent\nuser\tSing!\nassistant\tLa, "la"↵lo\n'


def test_a_statement_is_read_from_a_file(url: str, tmp_path: Path) -> None:
    """`-f` is the option of psql."""
    (tmp_path / "messages.sql").write_text(f"-- every message\n{STATEMENT}", encoding="utf-8-sig")
    shown = [
        cli("sql", option, str(tmp_path / "messages.sql"), url=url).stdout for option in ("--file", "-f")
    ]
    assert "Sing!" in shown[0]
    assert shown[0] == shown[1]


def test_csv_has_a_line_of_names_and_exact_values(url: str) -> None:
    """The csv module reads what was stored: line ends, quotes, controls, NULL and bytes."""
    statement = (
        "SELECT 'a\r' AS \"the, first\", 'b\nc' AS b, NULL AS missing, x'00ff' AS bytes, char(27) AS esc"
    )
    done = cli("sql", "--csv", statement, url=url)
    assert list(csv.reader(io.StringIO(done.stdout, newline=""))) == [
        ["the, first", "b", "missing", "bytes", "esc"],
        ["a\r", "b\nc", "", "AP8=", "\x1b"],
    ]
    assert from_stdin(url, "--csv", "-").stdout == 'role,content\nuser,Sing!\nassistant,"La, ""la""\nlo"\n'


def test_csv_without_rows_has_the_line_of_names(url: str) -> None:
    """A program that reads it finds the columns."""
    assert (
        cli("sql", "--csv", "SELECT role, content FROM messages WHERE 1 = 0", url=url).stdout
        == "role,content\n"
    )


def test_csv_in_a_terminal_shows_no_controls(url: str, tmp_path: Path) -> None:
    """There controls are escaped."""
    with Terminal("sql", "--csv", "SELECT char(27) || '[2J' AS text", folder=tmp_path) as terminal:
        assert terminal.end() == 0
    assert r"\x1b[2J" in terminal.text
    assert b"\x1b[2J" not in terminal.raw


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-f", "none.sql"], "none.sql cannot be read: No such file or directory"),
        (["-f", "none.sql", "SELECT 1"], "A statement and --file exclude each other"),
        (["--csv", "--json", "SELECT 1"], "--json and --csv exclude each other"),
        ([" "], "The statement is empty; give a SELECT"),
        ([], "The statement is empty; give a SELECT"),
    ],
    ids=str,
)
def test_an_invalid_source_of_a_statement_is_refused(url: str, arguments: list[str], expected: str) -> None:
    """The error names the next step."""
    done = cli("sql", *arguments, url=url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert expected in done.stderr


def test_a_file_that_is_no_text_is_refused(url: str, tmp_path: Path) -> None:
    """The database itself, for example."""
    (tmp_path / "a.sql").write_bytes(b"\xff\xfe")
    assert "a.sql is not UTF-8 text" in cli("sql", "-f", str(tmp_path / "a.sql"), url=url).stderr


def test_without_a_statement_a_terminal_is_not_read(url: str, tmp_path: Path) -> None:
    """The command ends and shows the three ways to give one."""
    with Terminal("sql", folder=tmp_path, columns=200) as terminal:
        assert terminal.end() == 1
    assert 'write `recorder sql "SELECT ..."`, --file FILE, or - for stdin' in terminal.text


def test_a_terminal_shows_the_text_of_every_script(url: str, tmp_path: Path) -> None:
    """Joined emoji and letters with joiners arrive there unchanged."""
    text = "👨\u200d👩\u200d👧 می\u200cخواهم क्\u200dष"
    with Terminal("sql", f"SELECT '{text}' AS text", folder=tmp_path) as terminal:
        assert terminal.end() == 0
    assert text in terminal.text
