"""A stranger's files, read by every command and from Python: in time, in bounded memory, with words and no controls."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recorder import ChatHistoryCallback
from recorder.core.printable import printable
from recorder.messages import HumanMessage
from tests import hostile
from tests.hostile_files import databases, exports
from tests.oracle import ROOT, new_url, record, sql

#: Of all that can be asked of a stranger's ids, how much is asked.
SHARE = 0.08


class Done(NamedTuple):
    """What was done, and what it said."""

    what: list[str]
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as recorder makes one."""
    url = new_url(tmp_path_factory.mktemp("honest"))
    with ChatHistoryCallback(url, conversation_id="good") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    return Path(url.removeprefix("sqlite:///"))


def read_by_all(part: str, *files: Path, seed: int = 0) -> list[Done]:
    """What a part of all that reads files says of these, in a process of its own with limits on memory and time."""
    command = [sys.executable, "-m", "tests.hostile", part, str(seed), str(SHARE), *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=150)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2_000:]
    return judge(Done(*json.loads(line)) for line in done.stdout.splitlines())


def judge(found: Iterable[Done]) -> list[Done]:
    """Each ended well or with words; what was wrong is shown with what was done."""
    every = list(found)
    assert [done for done in every if (why := _wrong(done)) and print(why, done) is None] == []
    return every


def _wrong(done: Done) -> str | None:
    command, *_ = done.what
    raw = command == "export" or "--frames" in done.what  # into a pipe, byte for byte what was recorded
    if printable(done.err) != done.err or (printable(done.out) != done.out and not raw):
        return "controls"
    if "Traceback" in done.err or "TRACEBACK" in done.err or "please report" in done.err:
        return "an error that nobody has foreseen"
    if done.code == 130:
        return None if command == "tail" or "--follow" in done.what else "it never ended"
    if done.code and not done.err:
        return "no words"
    return None if len(done.err) < 20_000 else "too many words"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("part", ["commands", "ids", "python"])
def test_a_database_with_every_trick(part: str, honest: Path, tmp_path: Path) -> None:
    """Whatever is in its rows, all that reads it ends, with exit code 0 or one message."""
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


@pytest.mark.timeout(200)
def test_files_that_are_no_exports(tmp_path: Path) -> None:
    """Each import ends, and an error names the file."""
    files = exports(tmp_path / "exports")
    found = read_by_all("import", *files)
    assert len(found) == len(files)
    assert {done.code for done in found} == {0, 1}
    assert all(Path(done.what[1]).name in done.err for done in found if done.code)


@pytest.mark.timeout(200)
def test_databases_that_are_none_of_ours(honest: Path, tmp_path: Path) -> None:
    """Other tables, other revisions, views that have no end, and what is no database at all."""
    read_by_all("databases", *databases(tmp_path / "databases", honest))


def test_an_import_into_a_database_with_triggers(honest: Path, tmp_path: Path) -> None:
    """What a trigger cannot do ends the import with words, and nothing is stored."""
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
