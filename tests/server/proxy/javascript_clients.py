"""Runs the npm packages `openai` and `@anthropic-ai/sdk` in Node, many calls in one process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.oracle import ROOT

_FOLDER = Path(__file__).resolve().parent / "javascript"
#: Why tests are skipped.
NO_NODE = "Node 20 or newer and npm are not installed: JavaScript's SDKs are left out"
_INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


class JavaScriptCall(NamedTuple):
    """One streamed call."""

    #: "chat", "responses" or "messages".
    kind: str
    base_url: str
    body: dict[str, Any]
    headers: dict[str, str] = {}  # noqa: RUF012


def javascript_results(calls: Sequence[JavaScriptCall]) -> list[dict[str, Any]]:
    """Return for each call the number and a hash of its events, their text, the error and the run's id.

    Skips the test without Node.
    """
    packages = installed()
    command = ["node", str(_FOLDER / "calls.cjs"), str(packages)]
    given = json.dumps([call._asdict() for call in calls])
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@cache
def installed() -> Path:
    """Return the folder with the locked packages; they are installed once. Skips the test without Node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(NO_NODE)
    files = [_FOLDER / name for name in ("package.json", "package-lock.json")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = ROOT / "build" / f"javascript-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of the other processes of this run of the tests
        if not (folder / "installed").exists():
            for file in files:
                shutil.copy(file, folder)
            done = subprocess.run(
                _INSTALL, cwd=folder, capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"npm could not install the locked packages: {done.stderr[-300:]}")
            (folder / "installed").touch()
    return folder
