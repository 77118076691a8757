"""The command with which the reader can run this program again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

_NAME = "recorder"


def program() -> str:
    """`recorder` if the shell finds this program by its name; else its path, or `python -m recorder`.

    A program of an environment that is not activated is `.venv/bin/recorder`. The text is quoted for a shell.
    """
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == _NAME:
        return f"{_python()} -m {_NAME}"
    if called.name != _NAME or called.parent == Path() or _is_found(called):
        return _NAME
    return _as_typed(called)


def _is_found(called: Path) -> bool:
    """Whether the shell finds this file by its name."""
    found = shutil.which(_NAME)
    return found is not None and called.exists() and os.path.samefile(found, called)


def _python() -> str:
    # Not `samefile`: the Python of an environment is often a link to one that lacks its packages.
    names = [name for name in ("python", "python3") if shutil.which(name) == sys.executable]
    return names[0] if names else _as_typed(Path(sys.executable))


def _as_typed(path: Path) -> str:
    """The path, relative if it is in the current folder."""
    absolute = Path(os.path.abspath(path))
    is_here = absolute.is_relative_to(Path.cwd())
    shown = str(absolute.relative_to(Path.cwd())) if is_here else str(absolute)
    return shlex.quote(shown if os.sep in shown else f"./{shown}")
