"""A SQLite file or its log that is truncated while it is recorded into is reported at once, and the rest is kept."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.recording.serialize import MOVED
from recorder.storage.dialects.damage import DamagedFile, LogIndex, Sizes, is_cut, tells_of_damage
from recorder.storage.migrate import upgrade
from tests.oracle import assert_exact, assert_whole, begin, finish, new_url, record, say, sql, stored, token

TEXTS = [token(9, number) for number in range(3000)]
HOUR = 3600.0


def cut_file(size: float) -> Callable[[Path], None]:
    """Truncate the file to this share of its size, or by so many bytes."""
    return lambda path: os.truncate(path, _cut(path.stat().st_size, size))


def cut_log(size: float) -> Callable[[Path], None]:
    """Truncate the log in the same way."""
    return lambda path: os.truncate(f"{path}-wal", _cut(os.stat(f"{path}-wal").st_size, size))


def _cut(size: int, part: float) -> int:
    return int(size * part) if part >= 0 else int(size + part)


FILE = {"to nothing": cut_file(0), "to a half": cut_file(0.5), "by some bytes": cut_file(-100)}
LOG = {"log to nothing": cut_log(0), "log to a half": cut_log(0.5), "log by some bytes": cut_log(-100)}


def checkpoint(path: Path, how: str = "PASSIVE") -> None:
    """Another program copies the log into the file."""
    with closing(sqlite3.connect(path, timeout=20)) as other:
        other.execute(f"PRAGMA wal_checkpoint({how})").fetchall()


@pytest.mark.parametrize("harm", FILE)
def test_a_truncated_file_is_repaired_from_its_log(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log of a new recording has everything; a warning is logged, and no run has a gap."""
    path = tmp_path / "history.db"
    url = f"sqlite:///{path}"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        before, run_id = record(history, reply="before"), begin(history)
        say(history, run_id, TEXTS[:1000])
        history.flush().wait(20)
        FILE[harm](path)
        say(history, run_id, TEXTS[1000:])
        history.flush().wait(20)
        assert "was cut or overwritten while it was recorded into; nothing is missing" in caplog.text
        finish(history, run_id, "end")
    assert_whole(url, run_id, TEXTS)
    assert_whole(url, before, ["before"])
    assert sql(url, "PRAGMA integrity_check") == [("ok",)]
    assert [each.name for each in tmp_path.iterdir()] == ["history.db"]


@pytest.mark.parametrize("harm", ["to nothing", "to a half"])
@pytest.mark.parametrize("emptied", [False, True])
def test_a_file_that_cannot_be_repaired_is_kept_beside_a_new_one(
    harm: str, emptied: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and `stats()` say where; later tokens are stored, with a gap for the earlier ones."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id, silent = begin(history), begin(history)
        say(history, run_id, TEXTS[:1000])
        history.flush().wait(20)
        if emptied:
            checkpoint(path)
        FILE[harm](path)
        say(history, run_id, TEXTS[1000:])
        history.flush().wait(20)
        assert f"The damaged file is kept as {path}.damaged-1" in caplog.text
        assert "damaged-1" in (history.stats().last_error or "")
        assert history.stats().healthy
        finish(history, run_id, "end")
        finish(history, silent, "end")
    assert assert_exact(url, run_id, TEXTS).gaps == [(0, 1000, MOVED)]
    assert_whole(url, silent, [])
    assert sql(url, "PRAGMA integrity_check") == [("ok",)]
    assert (tmp_path / "history.db.damaged-1").exists()


@pytest.mark.parametrize("harm", LOG)
def test_a_file_whose_log_is_truncated_is_kept_with_what_is_left(harm: str, tmp_path: Path) -> None:
    """The file that is kept passes the integrity check."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        first = record(history, reply="first")
        history.flush().wait(20)
        checkpoint(path, "TRUNCATE")
        run_id = begin(history)
        say(history, run_id, TEXTS[:1000])
        history.flush().wait(20)
        LOG[harm](path)
        say(history, run_id, TEXTS[1000:])
        finish(history, run_id, "end")
    assert assert_exact(url, run_id, TEXTS).gaps == [(0, 1000, MOVED)]
    kept = f"sqlite:///{path}.damaged-1"
    assert_whole(kept, first, ["first"])
    assert sql(kept, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("harm", LOG)
def test_nothing_is_lost_when_a_log_is_truncated_after_a_checkpoint(harm: str, tmp_path: Path) -> None:
    """The file has all of the log."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history)
        say(history, run_id, TEXTS[:1000])
        history.flush().wait(20)
        checkpoint(path)
        LOG[harm](path)
        say(history, run_id, TEXTS[1000:])
        finish(history, run_id, "end")
    assert_whole(url, run_id, TEXTS)
    assert [each.name for each in tmp_path.iterdir()] == ["history.db"]


@pytest.mark.parametrize("statement", ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"])
def test_a_vacuum_or_a_checkpoint_is_not_taken_for_damage(
    statement: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program makes the file or the log smaller with SQLite."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history, "x" * 1_000_000)
        history.flush().wait(20)
        checkpoint(path)
        size = path.stat().st_size
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as other:
            other.execute("DELETE FROM messages")
            other.execute(statement)
        checkpoint(path, "TRUNCATE")
        assert path.stat().st_size < size or statement != "VACUUM"
        say(history, run_id, TEXTS)
        finish(history, run_id, "end")
    assert_whole(url, run_id, TEXTS)
    assert caplog.text == ""


def test_each_truncated_file_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    """The file is truncated twice, and recording goes on."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history)
        for part in range(3):
            say(history, run_id, TEXTS[1000 * part : 1000 * part + 1000])
            history.flush().wait(20)
            checkpoint(path, "TRUNCATE")
            if part < 2:
                os.truncate(path, 0)
        finish(history, run_id, "end")
    assert assert_exact(url, run_id, TEXTS).gaps == [(0, 2000, MOVED)]
    kept = sorted(each.name for each in tmp_path.glob("*.damaged-?"))
    assert kept == ["history.db.damaged-1", "history.db.damaged-2"]


def test_a_file_is_kept_when_sqlite_reports_damage(tmp_path: Path) -> None:
    """The file is overwritten in place with its old size."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR, conversation_id="c") as history:
        record(history, reply="before")
        history.flush().wait(20)
        checkpoint(path, "TRUNCATE")
        with closing(sqlite3.connect(path, timeout=20)) as other:  # so that SQLite reads its pages again
            other.execute("UPDATE producers SET heartbeat_at = heartbeat_at")
            other.commit()
        checkpoint(path, "TRUNCATE")
        number = os.open(path, os.O_RDWR)  # closing it would release SQLite's locks
        os.pwrite(number, b"\x55" * (path.stat().st_size - 8192), 8192)
        runs = [record(history, reply="after") for _ in range(3)]
        history.flush().wait(30)
        assert "damaged-1" in (history.stats().last_error or "")
    os.close(number)
    for run_id in runs:
        assert_whole(url, run_id, ["after"])
    assert sql(url, "PRAGMA integrity_check") == [("ok",)]


# -- parts of the module -----------------------------------------------------------------------------------------


def test_sizes_remember_a_file_that_became_shorter(tmp_path: Path) -> None:
    """They forget it at `begin`, when the file is opened again; growth does not count."""
    path = tmp_path / "a.db"
    path.write_bytes(b"12345")
    sizes = Sizes(path)
    sizes.look()
    path.write_bytes(b"1234567")
    sizes.look()
    assert (sizes.file_shrank, sizes.log_shrank) == (False, False)
    path.write_bytes(b"12")
    sizes.look()
    path.write_bytes(b"1234567")
    sizes.look()
    assert (sizes.file_shrank, sizes.log_shrank) == (True, False)
    sizes.begin()
    sizes.look()
    assert not sizes.file_shrank


def test_a_file_with_missing_pages_is_cut(tmp_path: Path) -> None:
    """It has fewer pages than its header says, a part of a page, or none."""
    path = tmp_path / "a.db"
    upgrade(f"sqlite:///{path}")
    assert not is_cut(path)
    complete = path.stat().st_size
    for size in (complete - 100, complete - 8192, 8192, 100, 0):
        os.truncate(path, size)
        assert is_cut(path), size


def test_errors_about_malformed_pages_tell_of_damage(tmp_path: Path) -> None:
    """A locked file is not damaged."""
    (tmp_path / "a.db").write_bytes(b"no database" * 1000)
    with (
        closing(sqlite3.connect(tmp_path / "a.db")) as connection,
        pytest.raises(sqlite3.DatabaseError, match="not a database") as raised,
    ):
        connection.execute("SELECT * FROM sqlite_master")
    assert tells_of_damage(raised.value)
    assert not tells_of_damage(sqlite3.OperationalError("database is locked"))
    assert not tells_of_damage(TimeoutError())


def test_a_log_without_an_index_is_not_cut(tmp_path: Path) -> None:
    """There is no index to compare it with."""
    (tmp_path / "a.db-wal").write_bytes(b"")
    assert not LogIndex(tmp_path / "a.db").log_is_cut()
    (tmp_path / "a.db-shm").write_bytes(b"short")
    assert not LogIndex(tmp_path / "a.db").log_is_cut()


def test_a_damaged_file_gets_a_name_that_is_not_in_use(tmp_path: Path) -> None:
    """No file that was kept before is overwritten."""
    for name in ("a.db.damaged-1", "a.db.damaged-2-wal"):
        (tmp_path / name).touch()
    assert DamagedFile(tmp_path / "a.db").aside == tmp_path / "a.db.damaged-3"


def test_a_file_that_was_truncated_before_it_is_opened_raises(tmp_path: Path) -> None:
    """No recorder had it open, so it is not kept under another name."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url) as history:
        run_id = record(history, reply="whole")
    assert stored(url, run_id).texts == {0: "whole"}
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(Exception, match="malformed"):
        ChatHistoryCallback(url)
    assert [each.name for each in tmp_path.glob("*damaged*")] == []
