"""`recorder export` and `recorder import`: their output and their errors."""

from __future__ import annotations

import gzip
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.export import import_
from recorder.export.format import write
from recorder.messages import HumanMessage
from tests.cli.test_commands import cli
from tests.export.test_export import written
from tests.export.test_format import CONVERSATION, EVERYTHING
from tests.oracle import ROOT, begin, finish, new_url, record, say, sql
from tests.terminal import Terminal


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a database with two conversations."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        for name in ("song", "trip"):
            with history.conversation(name):
                record(history, HumanMessage(name), reply="Hello")
    return url


COUNTS = "2 conversations, 4 messages, 2 runs, 2 tokens"


def test_an_export_can_be_imported_into_a_new_database(url: str, tmp_path: Path) -> None:
    """The commands print what was written, what is new and what was stored already."""
    file, other = tmp_path / "all.jsonl", f"sqlite:///{tmp_path / 'other.db'}"
    done = cli("export", "-o", str(file), url=url)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"Wrote {COUNTS} to {file}.\n")
    done = cli("import", str(file), url=other)
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"Read {file}, exported \d{{4}}-.*Z from {url},\ninto {other}\nNew: {COUNTS}\.\n"
        r"Already stored: nothing\.\n",
        done.stdout,
    )
    assert written(other) == written(url)
    again = cli("import", str(file), url=other)
    assert again.exit_code == 0
    assert again.stdout.endswith(f"New: nothing.\nAlready stored: {COUNTS}.\n")


def test_an_export_can_be_piped_into_an_import(url: str, tmp_path: Path) -> None:
    """Only the chosen conversations are exported, as UTF-8 whatever the encoding of the terminal is."""
    code = "import sys; sys.argv[0] = 'recorder'; from recorder.cli.app import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    with ChatHistoryCallback(url) as history, history.conversation("é"):
        record(history, reply="水")
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        [*command, "export", "é", "tri", "--url", url], env=environment, stdout=subprocess.PIPE
    ) as out:
        done = subprocess.run(
            [*command, "import", "-", "--url", f"sqlite:///{tmp_path / 'other.db'}"],
            env=environment,
            stdin=out.stdout,
            capture_output=True,
            check=True,
        )
    assert b"Read stdin, exported" in done.stdout
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert sql(other, "SELECT id FROM conversations ORDER BY id") == [("trip",), ("é",)]


def test_a_name_that_ends_in_gz_is_compressed(url: str, tmp_path: Path) -> None:
    """An import recognizes gzip in a file and on stdin."""
    file = tmp_path / "all.jsonl.gz"
    assert cli("export", "--output", str(file), url=url).exit_code == 0
    assert gzip.decompress(file.read_bytes()).startswith(b'{"format":"recorder"')
    assert "Already stored: 2 conversations" in cli("import", str(file), url=url).stdout
    done = CliRunner().invoke(app, ["import", "-", "--url", url], input=file.read_bytes())
    assert "Already stored: 2 conversations" in done.stdout


def test_an_export_names_the_runs_that_still_stream(url: str, tmp_path: Path) -> None:
    """The message has the number and the ids of the runs that were left out."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, ["La"])
        history.flush().wait()
        done = cli("export", "-o", str(tmp_path / "a.jsonl"), url=url)
        finish(history, run_id, "La")
    assert done.stderr.endswith(
        f"Left out: 1 run that still streams ({run_id}); export again when it has ended.\n"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "file.jsonl: The file is empty, so it is not an export of recorder"),
        (
            b"Dear diary",
            "file.jsonl: The file is not an export of recorder: it begins with b'Dear diary'; `recorder export`",
        ),
        (
            b'{"format":"recorder","version":3}',
            "version 3 of the format, and this recorder reads up to 2; install a newer",
        ),
        (b"\x1f\x8b\x08 no gzip", "file.jsonl: The file is gzip and damaged, or was cut off"),
    ],
)
def test_an_invalid_export_is_refused_by_the_command(content: bytes, expected: str, tmp_path: Path) -> None:
    """The error names the file, and no database is created."""
    (tmp_path / "file.jsonl").write_bytes(content)
    done = cli("import", str(tmp_path / "file.jsonl"), url=f"sqlite:///{tmp_path / 'new.db'}")
    assert (done.exit_code, done.stdout) == (1, "")
    assert expected in done.stderr
    assert not (tmp_path / "new.db").exists()


def test_a_conflicting_import_is_refused_with_both_values(tmp_path: Path) -> None:
    """The error names the row, both values and the next step."""
    url, file = new_url(tmp_path), tmp_path / "a.jsonl"
    file.write_text("".join(write(EVERYTHING)))
    assert cli("import", str(file), url=url).exit_code == 0
    file.write_text("".join(write([CONVERSATION._replace(user_id="u-2")])))
    done = cli("import", str(file), url=url)
    assert done.exit_code == 1
    assert done.stderr == (
        "recorder: conversations c: stored already with another user_id, 'u-1' and not 'u-2'; "
        "import into another database, or delete one of the two\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "tripp"], "the nearest are:\n  conversation trip"),
        (["export", "-o", "none/a.jsonl"], "The folder "),
        (["import", "none.jsonl"], "none.jsonl cannot be read: No such file or directory"),
        (["import", "."], ". cannot be read: Is a directory"),
    ],
    ids=" ".join,
)
def test_an_invalid_argument_of_a_transfer_is_refused(arguments: list[str], expected: str, url: str) -> None:
    """The error names the thing and the next step."""
    done = cli(*arguments, url=url)
    assert done.exit_code == 1
    assert expected in done.stderr


def test_progress_is_shown_in_a_terminal(tmp_path: Path) -> None:
    """A terminal shows the progress, and a last line with the counts."""
    file = tmp_path / "a.jsonl"
    file.write_text("".join(write(EVERYTHING)))
    url = f"sqlite:///{tmp_path / 'a.db'}"
    for command, title in ((["import", str(file)], "Importing"), (["export", "-o", str(file)], "Exporting")):
        with Terminal(*command, "--url", url, folder=tmp_path) as terminal:
            assert terminal.end() == 0
            assert title in terminal.text
            assert "1 conversation, 1 message, 1 run, 3 tokens" in terminal.text


def test_the_progress_of_a_redirected_export_is_one_line(tmp_path: Path) -> None:
    """The bar is as wide as the terminal in which it is drawn, though stdout is a file without a width."""
    url, file = new_url(tmp_path), tmp_path / "all.jsonl"
    import_(url, io.StringIO("".join(write(EVERYTHING))))
    with (
        file.open("wb") as out,
        Terminal("export", "--url", url, folder=tmp_path, columns=60, stdout=out) as terminal,
    ):
        assert terminal.end() == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.raw.decode()))
    assert max(len(line) for line in lines if "Exporting" in line) <= 60
    assert file.read_text().splitlines(keepends=True)[1:] == written(url)
