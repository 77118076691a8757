"""`GET /search`: pages of hits, of the caller's own conversations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import HumanMessage
from tests import postgres
from tests.oracle import new_url
from tests.server.serving import CLIENT, Served, serving
from tests.server.test_conversations import ANNA, BORIS, get

ALL = "a-token-for-everything"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server with messages of two users."""
    on_postgres = request.param == "postgres"
    url = postgres.new_database() if on_postgres else new_url(Path(tmp_path_factory.mktemp("search")))
    with ChatHistoryCallback(url) as history:
        for number in range(9):
            user = ("anna", "boris")[number % 2]
            with history.user(user):
                history.add_messages(
                    [HumanMessage(f"Hello 退款 {number} <b>")], conversation_id=f"{user}/{number}"
                )
            history.flush().wait()
        history.update_conversation("anna/4", tags=["vip"])
    with serving(url, {ANNA: "anna", BORIS: "boris", ALL: None}) as found:
        yield found
    if on_postgres:
        postgres.drop(url)


def hits(server: Served, token: str, **parameters: Any) -> list[str]:
    """Return the conversations of a page."""
    return [hit["conversation_id"] for hit in get(server, "/search", token, **parameters)["hits"]]


def test_a_page_has_places_and_plain_text(server: Served) -> None:
    """Offsets count characters; the snippet is in pieces, without HTML."""
    [first, *_] = get(server, "/search", ALL, q="退款")["hits"]
    assert first["conversation_id"] == "anna/8"
    assert (first["role"], first["part"], first["start"], first["end"]) == ("user", "text", 6, 8)
    texts = [
        {"text": "Hello ", "match": False},
        {"text": "退款", "match": True},
        {"text": " 8 <b>", "match": False},
    ]
    assert first["snippet"] == texts


def test_pages_follow_one_another(server: Served) -> None:
    """Each hit once, the newest first."""
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = get(server, "/search", ALL, q="hello", limit=2, after=after)
        assert page["complete"] is True
        found += [hit["conversation_id"][-1] for hit in page["hits"]]
        after = page["next"]
    assert found == list("876543210")


def test_a_token_finds_what_belongs_to_its_user(server: Served) -> None:
    """Also with a cursor of another user; asking for another user is refused."""
    assert hits(server, BORIS, q="hello") == [f"boris/{n}" for n in (7, 5, 3, 1)]
    after = get(server, "/search", ANNA, q="hello", limit=2)["next"]
    assert hits(server, BORIS, q="hello", after=after) == [f"boris/{n}" for n in (5, 3, 1)]
    assert hits(server, BORIS, q="hello", user="boris") == hits(server, BORIS, q="hello")
    assert get(server, "/search", BORIS, q="hello", user="anna")["status"] == 403
    assert CLIENT.get(f"{server.url}/search?q=hello").status_code == 401


def test_conversations_are_filtered(server: Served) -> None:
    """As the list of conversations is."""
    assert hits(server, ALL, q="hello", tag="vip") == ["anna/4"]
    assert hits(server, ALL, q="hello", status="complete") == hits(server, ALL, q="hello", until="1h") == []
    assert hits(server, ALL, q="hello", since="1h", limit=1) == ["anna/8"]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"q": "x" * 10_001},
        {"q": "hello", "limit": 0},
        {"q": "hello", "limit": 201},
        {"q": "hello", "after": "WyJ4Il0"},
        {"q": "hello", "after": "\ud7ff"},
        {"q": "hello", "since": "yesterday"},
        {"q": "hello", "status": "odd"},
    ],
)
def test_wrong_parameters_are_named(server: Served, parameters: dict[str, Any]) -> None:
    """With the one form of errors."""
    answer = CLIENT.get(f"{server.url}/search", params=parameters, headers={"authorization": f"Bearer {ALL}"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("query", ["", " ", '"', "\0", "'; --", "* & | !", "(" * 5_000, "é" * 2_000])
def test_any_query_is_answered(server: Served, query: str) -> None:
    """It finds nothing."""
    assert get(server, "/search", ALL, q=query)["hits"] == []
