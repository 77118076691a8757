"""`recorder ls` with conditions: which conversations match, and what is said of those that are not shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from recorder.errors import ConfigError
from recorder.storage import conversation_list as listing
from recorder.storage.conversation_filter import ConversationFilter, moment_of
from recorder.storage.store import SqlStore
from tests.cli.test_commands import cli
from tests.cli.test_listing import START, conversation, fill, message, run, using

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
#: A process that has sent no heartbeat since long ago.
DEAD = {"id": str(UUID(int=7)), "host": "gone", "pid": 1, "started_at": LONG_AGO, "heartbeat_at": LONG_AGO}
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def run_of(conversation_id: str, seconds: int, **columns: Any) -> dict[str, Any]:
    """Return a run; rows that are inserted together have the same columns."""
    unset = dict.fromkeys(("request_model", "response_model", "tags", "producer_id"))
    return {**run(conversation_id, seconds), **unset, **columns}


@pytest.fixture
def url(database: str) -> str:
    """Return a database with four conversations, the newest last."""
    rows = {
        "producers": [DEAD],
        "conversations": [
            {**conversation(name), "user_id": user}
            for name, user in (("a", "ann"), ("b", "bob"), ("c", "ann"), ("d", None))
        ],
        "messages": [message("d", 40)],
        "runs": [
            run_of("a", 10, request_model="small", tags='["prod","fast"]'),
            run_of("a", 11, request_model="small", response_model="small-1", status="error"),
            run_of("b", 20, request_model="small", status="error"),
            run_of("b", 21, request_model="large", tags='["production"]'),
            run_of("c", 30, status="streaming", producer_id=DEAD["id"]),
        ],
    }
    fill(database, rows)
    return database


def ids(url: str, **conditions: Any) -> list[str]:
    """Return the ids of the conversations that match."""
    wanted = ConversationFilter(**conditions)
    return [row["id"] for row in using(url, lambda store: listing.listed(store, None, wanted)).rows]


def test_conditions_on_runs_users_and_times(url: str) -> None:
    """The status is that of the newest run; a model or a tag may be that of any run. All conditions must hold."""
    at = [START + timedelta(seconds=seconds) for seconds in (11, 21, 40)]
    assert ids(url) == ["d", "c", "b", "a"]
    assert ids(url, status="error") == ["a"]
    assert ids(url, status="complete") == ["b"]
    assert ids(url, user="ann") == ["c", "a"]
    assert ids(url, model="small") == ["b", "a"]
    assert ids(url, model="small-1") == ["a"]
    assert ids(url, tag="prod") == ["a"]
    assert ids(url, tag="PROD") == []
    assert ids(url, since=at[1]) == ["d", "c", "b"]
    assert ids(url, until=at[1]) == ["b", "a"]
    assert ids(url, since=at[0], until=at[2], user="ann", tag="fast", model="small", status="error") == ["a"]


def test_a_run_of_a_dead_process_counts_as_interrupted(url: str) -> None:
    """It is stored as streaming, and no recorder has marked it yet."""
    assert (ids(url, status="interrupted"), ids(url, status="streaming")) == (["c"], [])


def test_the_command_line_has_each_condition(url: str) -> None:
    """Times are dates or durations."""
    options = [
        "--status",
        "error",
        "--user",
        "ann",
        "--model",
        "small",
        "--tag",
        "fast",
        "--since",
        "2026-11-21",
        "--until",
        "2026-11-21",
    ]
    assert [row["id"] for row in json.loads(cli("ls", "--json", *options, url=url).stdout)] == ["a"]
    assert cli("ls", "--since", "2000-01-01", "--until", "1s", "--user", "nobody", url=url).stdout == (
        "No conversation matches.\n"
    )


def test_a_list_that_is_cut_has_both_numbers(url: str) -> None:
    """The numbers are on stderr, so that a pipe gets only conversations."""
    assert cli("ls", "-n", "3", url=url).stderr == "3 of 4; --all lists all\n"
    assert cli("ls", "-n", "1", "--user", "ann", "--json", url=url).stderr == "1 of 2; --all lists all\n"
    assert [cli("ls", *more, url=url).stderr for more in (["-n", "4"], ["-n", "1", "--all"], [])] == [
        "",
        "",
        "",
    ]


def test_many_conversations_are_not_counted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting a million would take longer than listing twenty."""
    monkeypatch.setattr(listing, "COUNTED", 2)
    assert cli("ls", "-n", "1", url=url).stderr == "1 of more than 2; --all lists all\n"
    assert cli("ls", "-n", "3", url=url).stderr == "3 of more than 3; --all lists all\n"


def test_more_conversations_than_one_query_describes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--all` lists each one once, in the same order."""
    monkeypatch.setattr(listing, "_IDS_A_QUERY", 3)
    rows = json.loads(cli("ls", "--json", "--all", url=url).stdout)
    assert [(row["id"], row["runs"]) for row in rows] == [("d", 0), ("c", 1), ("b", 2), ("a", 2)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2h", NOON - timedelta(hours=2)),
        ("3d", NOON - timedelta(days=3)),
        ("90s", NOON - timedelta(seconds=90)),
        ("30m", NOON - timedelta(minutes=30)),
        ("1.5w", NOON - timedelta(weeks=1.5)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T10:30", datetime(2026, 11, 20, 10, 30, tzinfo=UTC)),
        ("2026-11-20 10:30:05Z", datetime(2026, 11, 20, 10, 30, 5, tzinfo=UTC)),
        ("2026-11-20T10:30+02:00", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_date_or_a_duration(given: str, expected: datetime) -> None:
    """Without a zone it is UTC, as `ls` shows it."""
    assert moment_of("--since", given, NOON) == expected


def test_until_a_date_includes_its_day() -> None:
    """So the same date for both options is this day."""
    assert moment_of("--until", "2026-11-20", NOON, end=True) == datetime(
        2026, 11, 20, 23, 59, 59, 999999, UTC
    )


@pytest.mark.parametrize("given", ["soon", "2 hours", "2026-13-01", "9999999999999w", "99999d", ""])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    """The error shows each form."""
    with pytest.raises(ConfigError, match=r"--since is .*give a date \(2026-11-21\).*2h, 3d"):
        moment_of("--since", given, datetime(200, 1, 1, tzinfo=UTC))


def test_an_unknown_status_is_refused(url: str) -> None:
    """The error lists the statuses."""
    done = cli("ls", "--status", "done", url=url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        "--status is 'done'; choose one of streaming, complete, incomplete, cancelled, error" in done.stderr
    )


def test_conditions_on_a_file_from_somebody_else(url: str) -> None:
    """A conversation without a run has no status, and one without a row has no time."""
    fill(url, {"conversations": [conversation("empty")]})
    assert ids(url)[-1] == "empty"
    assert "empty" not in ids(url, until=START + timedelta(days=1))

    async def of_all(store: SqlStore) -> list[dict[str, Any]]:
        return await listing.conversations(store, 9)

    assert [row["id"] for row in using(url, of_all)] == ids(url)
