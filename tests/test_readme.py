"""The code blocks of README.md and docs/ run in order, with a loopback provider and a real file."""

from __future__ import annotations

import gc
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from recorder.cli.app import app
from recorder.testing import LoopbackProvider, song
from tests.collector import collecting_process as collecting_process
from tests.collector import collector as collector

ROOT = Path(__file__).resolve().parents[1]
#: Not run here: tests/storage/test_sql_cookbook.py runs its statements on both databases.
COOKBOOK = ROOT / "docs" / "sql.md"
DOCUMENTS = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if path != COOKBOOK)]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n\s*)?^```(?P<kind>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUN = {"python", "sql", "console"}

#: Patterns of output that differs from run to run, and what replaces it: ids, times, numbers, widths of tables.
CHANGING = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?"), "TIME"),
    (re.compile(r"\d[\d,.]*"), "#"),
    (re.compile(r"[─━-]{2,}"), "--"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a document."""

    document: Path
    #: The line of the fence, counted from 1.
    line: int
    #: python, sql, console, text, ...
    kind: str
    text: str
    #: Why the block is not run; None if it is run.
    reason: str | None

    @property
    def place(self) -> str:
        """Return the file and line of the block, as editors and tracebacks write them."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    """Yield the blocks of a document that could be run."""
    text = document.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found["kind"] in RUN:
            line = text.count("\n", 0, found.start("text"))
            yield Block(document, line, found["kind"], found["text"], found["reason"])


def run_python(block: Block) -> None:
    """Run a block as a script; tracebacks show the line numbers of the document."""
    code = compile("\n" * block.line + block.text, str(block.document), "exec")
    exec(code, {"__name__": "__main__"})


def run_sql(block: Block) -> None:
    """Assert that each statement returns at least one row from the recorded database."""
    connection = sqlite3.connect("file:chat_history.db?mode=ro", uri=True)
    try:
        for statement in statements(block.text):
            assert connection.execute(statement).fetchall() != [], f"{block.place}: no rows from {statement}"
    finally:
        connection.close()


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; a semicolon in a comment or a string does not end a statement."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), f"no semicolon ends {statement}"


def run_console(block: Block) -> None:
    """Assert that each `$ recorder ...` prints the text below it."""
    for shown in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = shown.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "recorder", f"{block.place}: only recorder's own commands can be run here"
        done = run_cli(arguments)
        assert done.exit_code == 0, f"{block.place}: {command}\n{done.output}"
        assert re.fullmatch(pattern(expected), steady(done.output)), f"{block.place}: prints\n{done.output}"


def run_cli(arguments: list[str]) -> Result:
    """Run one command in a terminal of 110 columns without colour."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "110", "NO_COLOR": "1"})


def steady(output: str) -> str:
    """Return output without the parts that change from run to run."""
    for changing, name in CHANGING:
        output = changing.sub(name, output)
    return "\n".join(line.strip() for line in output.strip().splitlines())


def pattern(shown: str) -> str:
    """Return a pattern for the output that a document shows; `...` matches anything."""
    return re.escape(steady(shown)).replace(r"\.\.\.", r"[\s\S]*")


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackProvider]:
    """Yield a provider to which the SDKs' environment variables point, with an empty folder as current directory."""
    gc.collect()  # what earlier tests left open is reported here, and not by the end of the test
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECORDER_URL", raising=False)
    with LoopbackProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-loopback")
        yield provider


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.usefixtures("provider")
def test_the_code_blocks_of_a_document_run(
    document: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python runs, SQL finds rows that the Python recorded, and commands print what the document shows."""
    if "DATABASE_URL" in document.read_text(encoding="utf-8"):
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgres_url"))
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in document.read_text(encoding="utf-8"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", request.getfixturevalue("collector").url)
    run = {"python": run_python, "sql": run_sql, "console": run_console}
    for block in blocks(document):
        if block.reason is None:
            run[block.kind](block)
    gc.collect()  # raises warnings about unclosed objects in this test, and not in a later one


@pytest.fixture
def first_program(tmp_path: Path, warning_flags: list[str]) -> Callable[[str, dict[str, str]], str]:
    """Return a function that runs a program as a file, without a key, and returns what it printed."""
    given = ("OPENAI_", "ANTHROPIC_", "RECORDER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(given)}

    def run(program: str, variables: dict[str, str]) -> str:
        (tmp_path / "song.py").write_text(program, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, *warning_flags, "song.py"], cwd=tmp_path, env={**environment, **variables},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def first_python() -> str:
    """Return the first program of README.md."""
    return next(block.text for block in blocks(ROOT / "README.md") if block.kind == "python")


def test_the_first_program_runs_without_a_key(
    first_program: Callable[[str, dict[str, str]], str], tmp_path: Path
) -> None:
    """It prints the song and stores it, in an environment without an API key."""
    assert first_program(first_python(), {}) == song()
    with closing(sqlite3.connect(tmp_path / "chat_history.db")) as connection:
        assert connection.execute("SELECT role, status FROM transcripts ORDER BY position").fetchall() == [
            ("user", "complete"), ("assistant", "complete"),
        ]  # fmt: skip


def test_the_first_program_calls_openai_after_the_change_that_its_comment_shows(
    first_program: Callable[[str, dict[str, str]], str],
) -> None:
    """It takes the key, and here also the URL, from the environment."""
    program, count = re.subn(r"client = .*# yours: (openai.OpenAI\(\))", r"client = \1", first_python())
    assert count == 1
    with LoopbackProvider("Hello") as provider:
        variables = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": provider.base_url}
        assert first_program(program, variables) == "Hello"
    assert provider.requests[0]["headers"]["authorization"] == "Bearer sk-1"


def test_a_block_that_is_not_run_has_a_reason() -> None:
    """Each block that is left out names a reason; `-rP` prints all of them."""
    left_out = [block for path in DOCUMENTS for block in blocks(path) if block.reason is not None]
    for block in left_out:
        print(f"not run: {block.place}: {block.reason}")
    assert [block.place for block in left_out if not block.reason] == []


def test_the_readme_shows_python_sql_and_the_command_line() -> None:
    """README.md has at least one block of each kind that is run."""
    assert {block.kind for block in blocks(ROOT / "README.md") if block.reason is None} == RUN


def test_output_matches_when_only_ids_times_and_numbers_differ() -> None:
    """Output with another id, time or number matches; output with another word does not."""
    shown = "run 0193c0de-0000-7000-8000-000000000000 at 2026-01-01T00:00:00Z\n...\n12 tokens"
    printed = "run 0193c0de-1111-7000-8000-000000000000 at 2026-02-03T04:05:06.789Z\nx\ny\n7 tokens"
    assert re.fullmatch(pattern(shown), steady(printed))
    assert not re.fullmatch(pattern(shown), steady(printed.replace("tokens", "words")))


def test_every_decision_is_in_the_index() -> None:
    """The index lists each decision with the title of its page, in the order of the numbers."""
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^- \[(\d+)\. (.+)\]\((.+)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    pages = sorted(folder.glob("0*.md"))
    heads = [page.read_text().partition("\n")[0] for page in pages]
    assert [(f"# {number}. {title}", name) for number, title, name in listed] == [
        (head, page.name) for head, page in zip(heads, pages, strict=True)
    ]
    assert [int(page.name[:4]) for page in pages] == [int(number) for number, _, _ in listed]
