"""Plays one round of each quick fault, and checks that the judge of recordings finds damage."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from recorder.storage.rows import COMPLETE
from tests.faults.__main__ import faults, main
from tests.faults.campaign import POSTGRES, SQLITE, Fault, LeftOut, Round, Row, play
from tests.faults.producer import speaking
from tests.faults.table import printed
from tests.oracle import Acknowledged, Verdict, judge, new_url

#: Faults of which each run of the tests plays a round, on one of their databases; the others take too long.
SAMPLED = (
    "kill", "many", "make", "calls", "disk", "commit", "cut", "fork", "workers", "end", "interrupt", "collector",
    "replays", "signals", "keyboard", "full", "lock", "cancel", "driver", "stop", "close", "swallow", "clock",
    "move", "truncate",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_a_round_of_a_fault_is_exact(name: str, pytestconfig: pytest.Config) -> None:
    """Nothing that was acknowledged before the fault is missing, doubled or out of order."""
    seed = pytestconfig.option.seed
    [fault] = [fault for fault in faults() if fault.name == name]
    # With --all each fault is played on all its databases; otherwise on one of them, and the next fault on another.
    chosen = fault.on if pytestconfig.option.all else [fault.on[(seed + SAMPLED.index(name)) % len(fault.on)]]
    for database in chosen:
        again = f"make faults ARGS='--only {fault.name} --on {database} --seed {seed} --rounds 1'"
        print(again)
        try:
            verdict = play(fault, database, seed)
        except LeftOut as reason:
            pytest.skip(str(reason))
        assert verdict.breaches == [], again
        assert verdict.exact, again


# -- the judge ---------------------------------------------------------------------------------------------------


def recorded(url: str) -> dict[int, Acknowledged]:
    """Record two runs of 50 tokens, and return what was acknowledged of them."""
    at = Round(1, url, Path(), random.Random(1))
    with speaking(at, flush_interval=3600) as speaker:
        for number in (speaker.begin(), speaker.begin()):
            speaker.acknowledge()
            for _ in range(5):
                speaker.say(number, 10)
                speaker.acknowledge()
        speaker.close()
    assert at.ledger == {number: Acknowledged(50, COMPLETE) for number in speaker.counts}
    return at.ledger


def test_an_undamaged_recording_is_exact(database: str) -> None:
    """The judge finds nothing wrong where each acknowledged token is stored once."""
    ledger = recorded(database)
    verdict = judge(database, ledger)
    assert verdict == Verdict(acknowledged=100)


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        ("DELETE FROM segments WHERE seq = 20", {"missing": 20}),
        ("DELETE FROM runs WHERE id = (SELECT max(id) FROM runs)", {"missing": 0}),
        ("UPDATE segments SET seq = seq - 1 WHERE seq = 40", {"missing": 2, "doubled": 2, "disordered": 20}),
        ("INSERT INTO gaps SELECT id, 40, 10, 'why' FROM runs", {"doubled": 20}),
        ("UPDATE runs SET status = 'interrupted'", {}),
        ("UPDATE runs SET token_count = 49", {}),
        ("INSERT INTO messages SELECT conversation_id, run_id, id, 9, role, content, parts, run_id, created_at, "
         "content_hash, thread_key, words FROM messages WHERE role = 'assistant'", {"doubled": 2}),
    ],
)  # fmt: skip
def test_the_judge_finds_damage(tmp_path: Path, damage: str, seen: dict[str, int]) -> None:
    """It counts what is missing, doubled or out of order, and reports every other difference."""
    url = new_url(tmp_path)
    ledger = recorded(url)
    _change(url, damage)
    verdict = judge(url, ledger)
    assert not verdict.exact
    assert {name: getattr(verdict, name) for name in seen} == seen


def test_tokens_in_gap_rows_count_as_stored_when_the_fault_allows_gaps(tmp_path: Path) -> None:
    """A full queue may leave a gap, a killed process may not."""
    url = new_url(tmp_path)
    ledger = recorded(url)
    _change(
        url, "INSERT INTO gaps SELECT run_id, seq, count, 'the queue was full' FROM segments WHERE seq = 0"
    )
    _change(url, "DELETE FROM segments WHERE seq = 0")
    assert judge(url, ledger).missing == 20
    assert judge(url, ledger, gaps=True).missing == 0


def _change(url: str, statement: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


# -- the command -------------------------------------------------------------------------------------------------


def test_the_table_lists_breaches_and_the_command_that_repeats_them() -> None:
    """Each fault has one line; below the table stand its breaches and the command."""

    def play(_round: Round) -> Verdict:
        return Verdict()

    bad = Row(
        Fault("kill", "SIGKILL", play),
        SQLITE,
        3,
        1.0,
        Verdict(1000, missing=2, breaches=["gone"]),
        broken=[7],
    )
    good = Row(Fault("cut", "a cut", play), POSTGRES, 5, 1.0, Verdict(20))
    absent = Row(Fault("calls", "a call", play), POSTGRES, left_out="strace is not installed")
    _, _, first, second, third, *rest = printed([bad, good, absent]).splitlines()
    assert first.split() == [
        "SIGKILL",
        "sqlite",
        "3",
        "1,000",
        "2",
        "0",
        "0",
        "0",
        "BREACH",
        "in",
        "1",
        "rounds",
    ]
    assert second.split() == ["a", "cut", "postgres", "5", "20", "0", "0", "0", "0", "EXACT"]
    assert third.endswith("left out: strace is not installed")
    assert "  gone" in rest
    assert "  repeat it: make faults ARGS='--only kill --on sqlite --seed 7 --rounds 1'" in rest


def test_the_command_does_not_touch_the_given_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It makes files of its own in the same folder, deletes them, and prints its seed and its table."""
    (tmp_path / "mine.db").write_bytes(b"mine")
    arguments = [
        "--only",
        "make",
        "--rounds",
        "1",
        "--seed",
        "7",
        "--url",
        f"sqlite:///{tmp_path}/mine.db",
    ]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert output.startswith("Seed 7; ")
    assert "EXACT" in output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.db"]
    assert (tmp_path / "mine.db").read_bytes() == b"mine"
