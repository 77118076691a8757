"""Commands in error messages install what pyproject.toml requires, also before recorder is on an index."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from recorder.core.installation import (
    INSTALL_NLP,
    INSTALL_OPENTELEMETRY,
    INSTALL_POSTGRES_DRIVER,
    INSTALL_PRICES,
    INSTALL_SERVER,
    INSTALL_TIKTOKEN,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_drivers_command_installs_the_extra() -> None:
    """It names the same requirements as the extra `postgres`, and the others those of their extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert shlex.split(INSTALL_POSTGRES_DRIVER) == ["pip", "install", *extras["postgres"]]
    assert shlex.split(INSTALL_TIKTOKEN) == ["pip", "install", *extras["tokens"]]
    assert shlex.split(INSTALL_NLP) == ["pip", "install", *extras["nlp"]]
    assert shlex.split(INSTALL_OPENTELEMETRY) == ["pip", "install", *extras["otel"]]
    without_markers = [each.partition(";")[0] for each in extras["server"]]
    assert shlex.split(INSTALL_SERVER) == ["pip", "install", *without_markers]
    assert shlex.split(INSTALL_PRICES) == ["pip", "install", *extras["costs"]]


def test_no_text_takes_recorder_from_an_index() -> None:
    """`pip install chat-recorder` is not written anywhere: an index may have no such package, or another one."""
    command = re.compile(r"pip install [^\n.`]*chat-recorder")
    paths = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "recorder").rglob("*.py"),
    ]
    assert [str(path) for path in paths if command.search(path.read_text(encoding="utf-8"))] == []
