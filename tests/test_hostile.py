"""Every command and every Python call reads malicious files in limited time and memory, without control characters."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recorder import ChatHistoryCallback
from recorder.core.printable import printable
from recorder.messages import HumanMessage
from tests import hostile
from tests.hostile_files import databases, exports
from tests.oracle import ROOT, new_url, record, sql

#: The share of all combinations of a command and an id that is run; with `--all` every combination is, for every file.
SHARE = 0.04
#: How many invalid databases the commands read, and how many the Python calls; with `--all` every one.
FILES = {"databases": 12, "python": 6}
#: Seconds that the reading may take.
PATIENCE, MUCH_PATIENCE = 150, 1_600
pytestmark = pytest.mark.timeout(1_700)


class Outcome(NamedTuple):
    """A call and its outcome: arguments, exit code, stdout and stderr."""

    what: list[str]
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a valid database."""
    url = new_url(tmp_path_factory.mktemp("honest"))
    with ChatHistoryCallback(url, conversation_id="good") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture
def read_by_all(pytestconfig: pytest.Config) -> Callable[..., list[Outcome]]:
    """A function that reads files with one part of `tests.hostile`, in a process with limits on memory and time."""
    share, patience = (1.0, MUCH_PATIENCE) if pytestconfig.option.all else (SHARE, PATIENCE)

    def read(part: str, *files: Path, seed: int = 0) -> list[Outcome]:
        command = [sys.executable, "-m", "tests.hostile", part, str(seed), str(share), *map(str, files)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=patience)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2_000:]
        return judge(Outcome(*json.loads(line)) for line in done.stdout.splitlines())

    return read


def judge(found: Iterable[Outcome]) -> list[Outcome]:
    """Assert that each call ended well or with a short message, print the other ones, and return all outcomes."""
    every = list(found)
    assert [done for done in every if (why := _wrong(done)) and print(why, done) is None] == []
    return every


def _wrong(done: Outcome) -> str | None:
    """Return what is wrong with an outcome, or None."""
    command, *_ = done.what
    raw = command == "export" or "--frames" in done.what  # these write the recorded bytes without changes
    if printable(done.err) != done.err or (printable(done.out) != done.out and not raw):
        return "controls"
    if "Traceback" in done.err or "TRACEBACK" in done.err or "please report" in done.err:
        return "an unexpected error"
    if done.code == 130:
        return None if command == "tail" or "--follow" in done.what else "it never ended"
    if done.code and not done.err:
        return "no message"
    return None if len(done.err) < 20_000 else "a message that is too long"


@pytest.mark.parametrize("part", ["commands", "ids", "python"])
def test_reading_a_malicious_database_ends_with_at_most_one_message(
    part: str, honest: Path, tmp_path: Path, read_by_all: Callable[..., list[Outcome]]
) -> None:
    """Every command and every Python call ends, with exit code 0 or one message."""
    seed = random.randrange(2**32)
    print("seed", seed)
    path = tmp_path / "stranger.db"
    path.write_bytes(honest.read_bytes())
    hostile.spoil(path, seed)
    found = read_by_all(part, path, seed=seed)
    assert len(found) > 20
    for done in found:
        if done.what[0] == "sql" and done.what[-1] in hostile.FORBIDDEN:
            assert done.code == 1, done
    assert not (ROOT / "x.db").exists()


def test_importing_a_malicious_file_ends_with_a_message_that_names_it(
    tmp_path: Path, read_by_all: Callable[..., list[Outcome]]
) -> None:
    """Each import ends, and an error names the file."""
    files = exports(tmp_path / "exports")
    found = read_by_all("import", *files)
    assert len(found) == len(files)
    assert {done.code for done in found} == {0, 1}
    assert all(Path(done.what[1]).name in done.err for done in found if done.code)


@pytest.mark.parametrize("part", ["databases", "python"])
def test_reading_an_invalid_database_ends_with_at_most_one_message(
    part: str,
    honest: Path,
    tmp_path: Path,
    read_by_all: Callable[..., list[Outcome]],
    pytestconfig: pytest.Config,
) -> None:
    """The files have other tables, other revisions or endless views, or are no databases."""
    files = databases(tmp_path / "databases", honest)
    if not pytestconfig.option.all:
        files = random.Random(f"{pytestconfig.option.seed} {part}").sample(files, FILES[part])
    read_by_all(part, *files)


def test_an_import_into_a_database_with_a_failing_trigger_stores_nothing(
    honest: Path, tmp_path: Path
) -> None:
    """A trigger that fails ends the import with a message, and no row is stored."""
    path = next(path for path in databases(tmp_path / "databases", honest) if "trigger" in path.name)
    before = _rows(path)
    [file] = [path for path in exports(tmp_path / "exports") if path.name == "009.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", "from recorder.cli.app import main; main()", "import", str(file), "--url", f"sqlite:///{path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "recorder: The database says:" in done.stderr
    assert _rows(path) == before


def _rows(path: Path) -> list[Any]:
    return [
        sql(f"sqlite:///{path}", f"SELECT count(*) FROM {table}")
        for table in ("messages", "runs", "segments")
    ]
