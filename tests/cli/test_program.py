"""`python -m recorder`, and the commands that recorder suggests: the reader can run them as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recorder.cli.program import program
from tests.oracle import ROOT

BIN = Path(sys.executable).parent


def run(*command: str | Path, folder: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    """Run a command with this PATH, and with the recorder of this folder."""
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("RECORDER_URL", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=50
    )


def test_python_m_recorder_is_the_command(tmp_path: Path) -> None:
    """It has the same help, under its own name."""
    shown = run(sys.executable, "-m", "recorder", "--help", folder=tmp_path).stdout
    assert "Usage: python -m recorder" in shown
    assert "replay" in shown


def test_the_commands_of_a_demonstration_can_be_run(tmp_path: Path) -> None:
    """The program is in no folder of PATH, so its path is part of them."""
    (tmp_path / ".venv").symlink_to(BIN.parent)
    done = run(".venv/bin/recorder", "demo", "--pace", "5000", folder=tmp_path)
    commands, _, page = done.stdout.split("Next:\n")[1].partition("\n\n")
    suggested = commands.splitlines()
    assert [line.split()[:2] for line in suggested] == [
        [".venv/bin/recorder", command] for command in ("show", "ls", "stats", "serve")
    ]
    assert "http://127.0.0.1:8765/#/c/demo-" in page
    assert "Write me a song" in run("sh", "-c", suggested[0], folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("called", "path", "shown"),
    [
        ("bin/recorder", "bin", "recorder"),
        ("{here}/bin/recorder", "{here}/bin", "recorder"),
        ("bin/recorder", "other", "bin/recorder"),
        ("{here}/bin/recorder", "", "bin/recorder"),
        ("{here}/../my bin/recorder", "", "'{above}/my bin/recorder'"),
        ("./recorder", "", "recorder"),
        ("recorder", "", "recorder"),
        ("/somewhere/pytest/__main__.py", "", "recorder"),
    ],
)
def test_a_program_is_named_as_the_shell_finds_it(
    called: str, path: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name if PATH leads to this very file, and else by its path."""
    here = tmp_path / "here"
    for folder in ("here/bin", "here/other", "my bin"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "recorder").touch(mode=0o755)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", path.format(here=here))
    monkeypatch.setattr("sys.argv", [called.format(here=here)])
    assert program() == shown.format(here=here, above=tmp_path)


@pytest.mark.parametrize(
    ("path", "shown"), [("env/bin", "python -m recorder"), ("", "env/bin/python -m recorder")], ids=str
)
def test_a_module_is_named_with_its_python(
    path: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the Python of an environment, whose name the shell may not know."""
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / path) if path else "")
    monkeypatch.setattr("sys.executable", str(tmp_path / "env/bin/python"))
    monkeypatch.setattr("sys.argv", [str(ROOT / "recorder/__main__.py")])
    assert program() == shown


def test_make_help_lists_the_commands_of_the_makefile() -> None:
    """Each of them that the head of the Makefile describes, and only those."""
    shown = run("make", "help", folder=ROOT).stdout
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^make ([\w-]+)  ", shown, re.MULTILINE) == re.findall(
        r"^# make ([\w-]+)  ", text, re.MULTILINE
    )
    assert "make run           see it work" in shown
