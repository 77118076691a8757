"""Conversations are listed page by page, and read with their runs; each user reads what is theirs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.storage import conversation_list
from tests.cli.test_listing import START, conversation, fill, message, run
from tests.oracle import begin, new_url, record, say
from tests.server.serving import CLIENT, Served, serving

ANNA, BORIS = "a-token-of-the-user-anna", "a-token-of-the-user-boris"


def get(server: Served, path: str, token: str | None = None, **parameters: Any) -> Any:
    """Return the JSON of an answer."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return CLIENT.get(server.url + path, params=parameters, headers=headers).json()


def pages(server: Served, limit: int, **parameters: Any) -> list[str]:
    """Return the ids of all pages, one after the other."""
    found, after = [], ""
    while True:
        page = get(server, "/conversations", limit=limit, after=after, **parameters)
        assert len(page["conversations"]) <= limit
        found += [each["id"] for each in page["conversations"]]
        after = page["next"]
        if after is None:
            return found
        assert len(page["conversations"]) == limit


def test_pages_are_the_list(
    database: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page after page lists each conversation once, in the order of the whole list, few or many of them."""
    print(f"seed {pytestconfig.option.seed}")
    chance = random.Random(pytestconfig.option.seed)
    names = [f"c{number}" for number in range(40)]
    rows: dict[str, list[dict[str, Any]]] = {
        "conversations": [conversation(name) for name in names],
        "messages": [message(chance.choice(names[:30]), chance.randrange(40)) for _ in range(80)],
        "runs": [run(chance.choice(names[:30]), chance.randrange(40)) for _ in range(40)],
    }
    fill(database, rows)
    with serving(database) as server:
        whole = pages(server, 200)
        assert sorted(whole) == sorted(names)
        assert pages(server, 7) == whole
        monkeypatch.setattr(conversation_list, "_FEW", 1)  # as if they were more than a thousand
        assert [pages(server, limit) for limit in (1, 3, 7, 39, 40)] == [whole] * 5
        assert pages(server, 2, since=(START + timedelta(seconds=30)).isoformat()) == [
            id for id in whole if newest(rows, id) >= 30
        ]


def newest(rows: dict[str, list[dict[str, Any]]], id: str) -> float:
    """Return the second of the newest row of a conversation; -1 without rows."""
    times = [
        row.get("created_at") or row["started_at"]
        for name in ("messages", "runs")
        for row in rows[name]
        if row["conversation_id"] == id
    ]
    return max([(time - START).total_seconds() for time in times], default=-1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server with conversations of two users."""
    url = new_url(tmp_path_factory.mktemp("users"))
    with ChatHistoryCallback(url) as history:
        with history.conversation("a/1", user="anna", metadata={"team": "support", "size": 12}, tags=["vip"]):
            record(history, reply="Hello", metadata={"plan": "free"})
            failed = begin(history)
            say(history, failed, ["Half an ans"])
            history.on_llm_error(ValueError("cut"), run_id=failed)
        with history.conversation("b", user="boris", metadata={"team": "sales", "size": 1}):
            record(history)
    with serving(url, {ANNA: "anna", BORIS: "boris", "a-token-for-everything": None}) as found:
        yield found


def ids(server: Served, token: str = "a-token-for-everything", **parameters: Any) -> list[str]:
    """Return the ids of the conversations that match."""
    return [each["id"] for each in get(server, "/conversations", token, **parameters)["conversations"]]


def test_filters_choose_conversations(server: Served) -> None:
    """All of them must hold."""
    assert ids(server) == ["b", "a/1"]
    assert ids(server, user="anna") == ids(server, status="error") == ids(server, tag="vip") == ["a/1"]
    assert ids(server, since="1h") == ["b", "a/1"]
    assert ids(server, until="1h") == ids(server, model="none") == []
    assert ids(server, metadata="team:support") == ids(server, metadata="size:12") == ["a/1"]
    assert ids(server, metadata="size:1") == ids(server, metadata=["team:sales", "size:1"]) == ["b"]
    assert ids(server, metadata="plan:free") == ["a/1"]
    assert ids(server, metadata=["team:sales", "size:12"]) == []
    assert ids(server, metadata="team:%") == ids(server, user="' OR 1=1 --") == ids(server, tag='"') == []


def test_a_token_lists_what_belongs_to_its_user(server: Served) -> None:
    """It may not ask for another user."""
    assert (ids(server, ANNA), ids(server, BORIS, user="boris")) == (["a/1"], ["b"])
    assert get(server, "/conversations", ANNA, user="boris")["status"] == 403
    assert ids(server, ANNA, metadata="team:sales") == []


def test_a_transcript_has_failed_runs(server: Served) -> None:
    """The id may have slashes; the failed run has its text and its error."""
    found = get(server, "/conversations/a%2F1", ANNA)
    assert found["user_id"] == "anna"
    assert [(each["role"], each["content"], each["status"]) for each in found["messages"]] == [
        ("user", "Hi", "complete"), ("assistant", "Hello", "complete"), ("assistant", "Half an ans", "error"),
    ]  # fmt: skip
    assert [each["status"] for each in found["runs"]] == ["complete", "error"]
    assert get(server, "/conversations/a/1", BORIS)["status"] == 404
    assert get(server, "/conversations/none", ANNA)["status"] == 404


def test_a_run_has_its_times_and_annotations(server: Served) -> None:
    """It has the columns of usage and costs, and its evaluations."""
    [good, failed] = get(server, "/conversations/a/1", ANNA)["runs"]
    with ChatHistoryCallback(server.database.url) as history:
        history.add_annotation(good["id"], "tone", score=0.5)
    found = get(server, f"/runs/{good['id']}", ANNA)
    assert [(each["name"], each["score"]) for each in found["annotations"]] == [("tone", 0.5)]
    assert {"stats", "gaps", "input_tokens", "cost", "usage", "started_at", "ended_at"} <= found.keys()
    assert get(server, f"/runs/{failed['id']}", ANNA)["error_type"] == "ValueError"
    assert get(server, f"/runs/{good['id']}", BORIS)["status"] == 404
    assert get(server, "/runs/none", ANNA)["status"] == 404


def test_rubbish_in_parameters_is_refused(server: Served) -> None:
    """The status is 400 for a text that has no meaning, and 422 for one of the wrong form."""
    for name, value, status in [
        ("after", "rubbish", 400), ("after", "WzEsMl0", 400), ("after", "W1siYSJdXQ", 400), ("after", "é", 400),
        ("after", "WyJ4IiwieSJd", 400), ("since", "yesterday", 400), ("until", "9" * 90 + "d", 400),
        ("metadata", "nothing", 400), ("metadata", ["a:b"] * 11, 422), ("limit", 0, 422), ("limit", 1_000, 422),
        ("status", "good", 422), ("user", "x" * 2_000, 422),
    ]:  # fmt: skip
        found = get(server, "/conversations", "a-token-for-everything", **{name: value})
        assert found["status"] == status, (name, value, found)


def test_text_that_json_cannot_write_is_answered(tmp_path: Path) -> None:
    """A lone surrogate, a NUL and a page's markup are read as they were recorded."""
    text = "\ud800\x00<script>\u202e"
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id=text) as history:
        record(history, reply=text)
    with serving(url) as server:
        [found] = get(server, "/conversations")["conversations"]
        assert found["id"] == text
        assert get(server, "/healthz")["status"] == "ok"
