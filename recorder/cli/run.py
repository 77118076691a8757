"""`recorder run`: replaces this process by a Python program whose model calls are recorded.

The program has this process's id, so it gets all signals, and its exit status is the command's.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from recorder.errors import ConfigError
from recorder.instrumentation import on_path
from recorder.instrumentation.startup import EXCLUDE_HOSTS, INCLUDE_HOSTS
from recorder.recording.deferred_store import is_plain

_SQLITE = "sqlite:///"
#: Python ignores these signals. A program would inherit that.
_IGNORED = ("SIGPIPE", "SIGXFZ", "SIGXFSZ")


def run(
    program: Sequence[str], url: str, *, is_module: bool, included: Sequence[str], excluded: Sequence[str]
) -> NoReturn:
    """Replace this process. Raises `ConfigError` for a URL or a program that does not exist."""
    _check(url)
    command = _command(program, is_module=is_module)
    environment = _environment(url, included, excluded)
    sys.stdout.flush()
    sys.stderr.flush()
    for name in _IGNORED:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(command[0], command, environment)
    except OSError as error:
        raise ConfigError(f"{program[0]} cannot be run: {error.strerror}") from error


def _check(url: str) -> None:
    """Raise `ConfigError` for a URL that recorder cannot use: the program would only log it."""
    if not is_plain(url):
        from recorder.storage.dialects import dialect_of, parse_url

        dialect_of(parse_url(url)).check()


def _command(program: Sequence[str], *, is_module: bool) -> list[str]:
    """The path of the program to run, and its arguments with its name."""
    name, *arguments = program
    if is_module:
        return [sys.executable, "-m", name, *arguments]
    path = Path(name)
    # A folder may have the name of a command, for example uvicorn/ beside a program.
    if path.suffix in (".py", ".pyz") or (path / "__main__.py").is_file():
        if not path.exists():
            raise ConfigError(f"There is no file {name}; name a Python file, or a module with -m")
        return [sys.executable, name, *arguments]
    if (found := shutil.which(name)) is None:
        raise ConfigError(f"There is no program {name}; name a Python file, a command, or a module with -m")
    return [found, *arguments]


def _environment(url: str, included: Sequence[str], excluded: Sequence[str]) -> dict[str, str]:
    """The environment of the program. The URL may hold a password, which arguments would show to every user."""
    folder = str(Path(on_path.__file__).parent)
    path = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    hosts = {INCLUDE_HOSTS: ",".join(included), EXCLUDE_HOSTS: ",".join(excluded)}
    return {
        **os.environ,
        **{name: value for name, value in hosts.items() if value},
        "PYTHONPATH": os.pathsep.join(path),
        "RECORDER_URL": _absolute(url),
    }


def _absolute(url: str) -> str:
    """The URL with the absolute path of its SQLite file: the program may change its folder."""
    file = url.removeprefix(_SQLITE)
    is_relative = (
        "://" not in file and file and not file.startswith(("/", "~", ":", "file:")) and "?" not in file
    )
    return f"{_SQLITE}{Path(file).absolute()}" if is_relative else url
