"""Runs each side of a comparison in a process of its own, by turns, and keeps the best."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: The time limit of one side (seconds); a side that takes longer hangs.
_LIMIT = 180

#: What one side measured: names and numbers, as its function returned them.
Measured = dict[str, float]


@dataclass(frozen=True, slots=True)
class Settings:
    """How thoroughly to measure."""

    #: Runs of each side; the best one counts.
    rounds: int
    #: Fewer tokens and shorter streams, for a quick check.
    quick: bool
    #: The seed of the words that are streamed.
    seed: int

    def size(self, full: int, quick: int) -> int:
        """`full`, or `quick` for a quick check."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: a function in a module of this package, and what to call it with."""

    #: "module:function"
    function: str
    arguments: Mapping[str, Any]
    #: Whether it gets the path of a new, empty folder as `folder`.
    folder: bool = False


def compare(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Measured]]:
    """Measure all sides by turns, `rounds` times, in an order that alternates."""
    found: dict[str, list[Measured]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            tell(f"  round {number + 1} of {rounds}: {name}")
            found[name].append(measure(sides[name]))
    return found


def measure(side: Side) -> Measured:
    """Run one side in a new process."""
    if not side.folder:
        return _run(side.function, dict(side.arguments))
    with tempfile.TemporaryDirectory(prefix="recorder-bench-") as folder:
        return _run(side.function, {**side.arguments, "folder": folder})


def _run(function: str, arguments: dict[str, Any]) -> Measured:
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_LIMIT
    )
    if done.returncode != 0:
        raise RuntimeError(f"{function} failed:\n{done.stderr[-3000:]}")
    result: Measured = json.loads(done.stdout.splitlines()[-1])
    return result


def environment() -> dict[str, str]:
    """The environment of a child: this package comes first on the path, and LangSmith's tracing is off."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "LANGSMITH_TRACING": "false", "PYTHONHASHSEED": "0"}


@contextmanager
def provider(*options: str) -> Iterator[str]:
    """Runs the loopback provider in a process of its own; yields its base URL."""
    command = [sys.executable, "-m", "recorder.testing", "--until-eof", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("")


def values(runs: Sequence[Measured], key: str) -> list[float]:
    """The figure `key` of each run."""
    return [run[key] for run in runs]


def best(runs: Sequence[Measured], key: str, pick: Callable[[Sequence[float]], float] = min) -> float:
    """The best run's figure: the lowest, or the highest with `pick=max`."""
    return pick(values(runs, key))


def tell(line: str) -> None:
    """Print progress to stderr; the tables go to stdout."""
    print(line, file=sys.stderr, flush=True)


def machine() -> str:
    """The computer and the versions of the packages, in one line."""
    packages = [
        "openai",
        "langchain-openai",
        "anthropic",
        "langchain-anthropic",
        "sqlalchemy",
        "aiosqlite",
        "orjson",
        "zstandard",
    ]
    parts = [
        f"{os.cpu_count()} cores of {_processor()}",
        f"Python {platform.python_version()}",
        *(f"{name} {_version(name)}" for name in packages),
        f"{platform.system()} {platform.release()}",
        f"databases on {_file_system(tempfile.gettempdir())}",
    ]
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _file_system(folder: str) -> str:
    """The type of the file system; on one in memory every commit would be free."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    real = os.path.realpath(folder)
    above = [mount for mount in mounts if Path(real).is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2]
