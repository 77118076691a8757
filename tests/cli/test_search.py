"""`recorder search`: messages with the words around the match."""

from __future__ import annotations

import json

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import AIMessage, HumanMessage
from tests.cli.test_commands import cli
from tests.stores import execute


@pytest.fixture
def url(database: str) -> str:
    """Return a database with messages of two users."""
    with ChatHistoryCallback(database) as history:
        with history.user("ada"):
            call = {"name": "find_order", "args": {"of": "refund"}, "id": "call_1"}
            said = [HumanMessage("I want a\n\x1b[31m refund, please."), AIMessage("", tool_calls=[call])]
            history.add_messages(said, conversation_id="support-1")
        with history.user("ben"):
            history.add_messages([HumanMessage("No refund, thanks")], conversation_id="support-2")
    return database


def test_hits_are_printed_with_their_place(url: str) -> None:
    """The newest first: conversation, role, time, and the words around. Controls of a terminal are escaped."""
    shown = cli("search", "Refund", "--url", url).stdout
    assert [line for line in shown.splitlines() if line.startswith("  ")] == [
        "  No refund, thanks",
        "  find_order of refund",
        "  I want a \\x1b[31m refund, please.",
    ]
    assert shown.count("support-1") == 2
    assert "assistant  in a tool call" in shown
    assert cli("search", "nothing", "--url", url).stdout == "No message matches.\n"


def test_options_choose_messages(url: str) -> None:
    """A user, times, a limit; more hits than the limit are mentioned."""
    found = json.loads(cli("search", "refund", "--url", url, "--user", "ben", "--json").stdout)
    assert [(hit["conversation_id"], hit["start"], hit["end"]) for hit in found] == [("support-2", 3, 9)]
    assert found[0]["snippet"][1] == {"text": "refund", "match": True}
    assert "No message" in cli("search", "refund", "--url", url, "--until", "1h").stdout
    cut = cli("search", "refund", "--url", url, "--limit", "2")
    assert "The newest 2; --limit lists more" in cut.stderr
    assert "at most 10,000" in cli("search", "x" * 10_001, "--url", url).stderr


def test_a_partly_indexed_database_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that indexes the rest."""
    monkeypatch.setattr("recorder.storage.search.candidates.MOST_NOT_INDEXED", 0)
    execute(url, "UPDATE messages SET words = NULL WHERE conversation_id = 'support-2'")
    found = cli("search", "refund", "--url", url)
    assert "Some messages are not indexed yet; run: recorder migrate --url" in found.stderr
    assert "support-2" not in found.stdout
    cli("migrate", "--url", url)
    assert "support-2" in cli("search", "refund", "--url", url).stdout
