"""Tab completes ids of conversations and runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recorder import ChatHistoryCallback
from recorder.cli import completion
from recorder.cli.app import app
from tests.oracle import ROOT, new_url, record

# typer 0.15 with click 8.2 or newer.
pytestmark = pytest.mark.filterwarnings("ignore:Importing 'parser.split_arg_string':DeprecationWarning")


def completed(line: str, **environment: str) -> list[str]:
    """Return what bash is given for the last word of a line."""
    asked = {"_RECORDER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = CliRunner().invoke(app, [], prog_name="recorder", env={**asked, **environment})
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def url(database: str) -> str:
    """Return a database with two conversations whose ids begin alike."""
    with ChatHistoryCallback(database) as history:
        for name in ("trap", "trip", "song"):
            record(history, reply="La", metadata={"conversation_id": name})
    return database


@pytest.mark.parametrize("command", ["show", "replay", "tail", "export", "export song", "chat -c"])
def test_tab_completes_ids_of_the_database(url: str, command: str) -> None:
    """It is the one at RECORDER_URL or --url."""
    assert completed(f"recorder {command} tr", RECORDER_URL=url) == ["trap", "trip"]
    first, *rest = command.split(" ")
    line = " ".join(["recorder", first, "--url", url, *rest, "tri"])
    assert completed(line) == ["trip"]


def test_tab_completes_the_id_of_a_run(url: str) -> None:
    """Its beginning is enough."""
    with ChatHistoryCallback(url) as history:
        run_id = record(history, reply="La")
    assert str(run_id) in completed(f"recorder show {str(run_id)[:3]}", RECORDER_URL=url)


def test_tab_without_a_beginning_offers_the_newest_conversations(url: str) -> None:
    """The newest one is first."""
    assert completed("recorder show ", RECORDER_URL=url) == ["song", "trip", "trap"]


def test_an_id_that_a_shell_would_execute_is_not_offered(tmp_path: Path) -> None:
    """A recording from somebody else may contain any id."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        for name in ("x$(reboot)", "x`reboot`", "x y", "x;y", "x\ny", "x'", "x\x1b[2J", "x-1", "xé:2@a.b/c"):
            record(history, reply="La", metadata={"conversation_id": name})
        record(history, reply="La", metadata={"conversation_id": "--output"})
    assert completed("recorder show x", RECORDER_URL=url) == ["x-1", "xé:2@a.b/c"]
    assert "--output" not in completed("recorder show ", RECORDER_URL=url)


@pytest.mark.parametrize(
    "given", ["none.db", "sqlite:///none.db", "./none", "postgres//host/db", "mysql://me@host/db"]
)
def test_tab_without_a_database_offers_nothing(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints no error into the line, and creates no file."""
    monkeypatch.chdir(tmp_path)
    assert completed("recorder show x", RECORDER_URL=given) == []
    assert list(tmp_path.iterdir()) == []


def test_tab_does_not_wait_for_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts the connection and never answers."""
    monkeypatch.setattr(completion, "_PATIENCE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://me@127.0.0.1:{server.getsockname()[1]}/db"
        assert completed("recorder show x", RECORDER_URL=url) == []


def test_tab_without_a_file_loads_no_database_library(tmp_path: Path) -> None:
    """So it is quick in every folder."""
    code = (
        "import sys, atexit; sys.argv[0] = 'recorder'; from recorder.cli.app import main\n"
        "atexit.register(lambda: print('sqlalchemy' in sys.modules))\nmain()"
    )
    asked = {"_RECORDER_COMPLETE": "complete_bash", "COMP_WORDS": "recorder show x", "COMP_CWORD": "2"}
    environment = {**os.environ, **asked, "PYTHONPATH": str(ROOT)}
    environment.pop("RECORDER_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (["False"], "")
