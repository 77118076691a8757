"""A conversation as a tree: its newest path, the names of its branches, and how `recorder show` draws it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.cli.branches import Fork, is_linear, laid_out, newest_path, path_of
from recorder.errors import NotFound
from recorder.messages import AIMessage, BaseMessage, HumanMessage
from tests.oracle import record


def tree(text: str) -> list[dict[str, Any]]:
    """Messages out of `id<parent@time ...`, in reading order."""
    rows: list[dict[str, Any]] = []
    for word in text.split():
        name, _, rest = word.partition("<")
        parent, _, time = rest.partition("@")
        position = next((row["position"] + 1 for row in rows if row["message_id"] == parent), 0)
        rows.append(
            {"message_id": name, "parent_id": parent or None, "position": position, "created_at": int(time)}
        )
    return rows


def drawn(messages: list[dict[str, Any]]) -> list[str]:
    """Each step as its indent's depth and its name."""
    return [
        f"{len(step.indent) // 3}:{step.name if isinstance(step, Fork) else step.row['message_id']}"
        for step in laid_out(messages)
    ]


LINE = tree("a<@1 b<a@2 c<b@3")
#: b and e answer a, and d comes last of all: the newest path goes through the first answer.
FORKED = tree("a<@1 b<a@2 c<b@3 d<b@9 e<a@4 f<e@5 g<f@6 h<f@7")


def test_a_line_is_drawn_without_indent() -> None:
    """Each message once, in order."""
    assert drawn(LINE) == ["0:a", "0:b", "0:c"]
    assert is_linear(LINE)
    assert newest_path(LINE) == LINE


def test_the_newest_path_is_the_trunk() -> None:
    """At each fork the others come first, one step further in; names say which answer it was, not where it stands."""
    assert drawn(FORKED) == [
        "0:a",
        "0:2", "1:e", "1:f", "1:2.1", "2:g", "1:2.2", "1:h",
        "0:1", "0:b", "0:1.1", "1:c", "0:1.2", "0:d",
    ]  # fmt: skip
    assert [row["message_id"] for row in newest_path(FORKED)] == ["a", "b", "d"]
    assert not is_linear(FORKED)


@pytest.mark.parametrize(
    ("name", "path"),
    [("1", "a b d"), ("1.1", "a b c"), ("1.2", "a b d"), ("2", "a e f h"), ("2.1", "a e f g")],
)
def test_a_path_goes_through_the_branch_of_a_name(name: str, path: str) -> None:
    """And below it along the newest."""
    assert [row["message_id"] for row in path_of(FORKED, name)] == path.split()


@pytest.mark.parametrize("name", ["3", "1.3", "1.1.1", "", "x", "1.", "2.2.2"])
def test_an_unknown_branch_is_told_with_those_there_are(name: str) -> None:
    """Names are to be read off, not guessed."""
    with pytest.raises(NotFound, match=r"choose one of 2, 2\.1, 2\.2, 1, 1\.1, 1\.2"):
        path_of(FORKED, name)
    with pytest.raises(NotFound, match="because it has no branches"):
        path_of(LINE, "1")


def test_nothing_has_no_path() -> None:
    """An empty conversation is a line of no messages."""
    assert newest_path([]) == []
    assert is_linear([])


def test_a_message_whose_parent_is_not_stored_is_a_first_one() -> None:
    """Two of them are two beginnings."""
    assert drawn(tree("a<@1 b<gone@2")) == ["0:1", "1:a", "0:2", "0:b"]


def waiting(parent: str | None, status: str, *, said_at: int, started_at: int) -> dict[str, Any]:
    """A run without a message, asked by a message."""
    run = {
        "message_id": None,
        "parent_id": parent,
        "position": 1,
        "created_at": 0,
        "run_id": f"{started_at:03}",
    }
    return {**run, "status": status, "said_at": said_at, "started_at": started_at}


@pytest.mark.parametrize(
    ("status", "said_at", "newest"),
    [("streaming", 2, "005"), ("streaming", 1, "b"), ("error", 2, "b"), ("interrupted", 2, "b")],
)
def test_a_run_without_a_message_is_the_newest_while_it_streams(
    status: str, said_at: int, newest: str
) -> None:
    """If the newest message was there when it began, whatever its clock said; one that has ended was asked in vain."""
    messages = [*tree("a<@1 b<a@2"), waiting("a", status, said_at=said_at, started_at=5)]
    [_, last] = newest_path(messages)
    assert (last["message_id"] or last["run_id"]) == newest


def test_of_runs_without_a_message_below_the_newest_message_the_last_is_on_its_branch() -> None:
    """The question was asked three times, and nobody answered."""
    attempts = [waiting("a", "error", said_at=1, started_at=time) for time in (3, 9, 5)]
    assert [row.get("run_id") for row in newest_path([*tree("a<@1"), *attempts])] == [None, "009"]
    assert [row["run_id"] for row in newest_path(attempts)] == ["009"]


def test_a_tree_of_forks_inside_of_forks_takes_no_more_than_its_messages() -> None:
    """Each branch hangs off the older answer of the one before: indents and names do not grow with that for ever."""
    count = 5_000
    words = ["0<@1"]
    for number in range(1, count):
        words += [f"{number}<{number - 1}@{number + 1}", f"x{number}<{number - 1}@{3 * count - number}"]
    steps = list(laid_out(tree_of(words)))
    assert sum(not isinstance(step, Fork) for step in steps) == 2 * count - 1
    assert max(len(step.indent) for step in steps) <= 63
    assert max(len(step.name) for step in steps if isinstance(step, Fork)) <= 610


def tree_of(words: list[str]) -> list[dict[str, Any]]:
    """As `tree`, of which a row looks for its parent among all."""
    rows: list[dict[str, Any]] = []
    for word in words:
        name, _, rest = word.partition("<")
        parent, _, time = rest.partition("@")
        rows.append({"message_id": name, "parent_id": parent or None, "position": 0, "created_at": int(time)})
    return rows


def test_a_long_conversation_with_a_fork_at_each_turn_is_laid_out() -> None:
    """Its depth is no limit."""
    assert len(newest_path(tree_of_pairs(3000))) == 3000


def tree_of_pairs(length: int) -> list[dict[str, Any]]:
    """A trunk of messages, each with a sibling that nobody answered."""
    rows: list[dict[str, Any]] = []
    for number in range(length):
        parent = f"m{number - 1}" if number else None
        for name, time in ((f"x{number}", 2 * number), (f"m{number}", 2 * number + 1)):
            rows.append({"message_id": name, "parent_id": parent, "position": number, "created_at": time})
    return rows


# -- as it is seen -------------------------------------------------------------------------------------------


def show(url: str, *arguments: str, columns: int = 80) -> Result:
    """`recorder show`."""
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", "RECORDER_URL": url}
    return CliRunner().invoke(app, ["show", *arguments], env=environment)


def say(history: ChatHistoryCallback, *messages: BaseMessage, reply: str) -> AIMessage:
    """One turn of the conversation `trip`."""
    record(history, *messages, reply=reply, metadata={"conversation_id": "trip"})
    return AIMessage(reply)


@pytest.fixture
def url(database: str) -> str:
    """A question that was asked twice; the first answer was talked about, and so was the second."""
    url = database
    where, why = HumanMessage("Where to?"), HumanMessage("Why there, of all the places that there are?")
    with ChatHistoryCallback(url) as history:
        paris = say(history, where, reply="Paris.")
        rome = say(history, where, reply="Rome.")
        say(history, where, paris, why, reply="The Louvre, and the cafés that are not far from it.")
        say(history, where, rome, HumanMessage("When?"), reply="In May.")
    return url


def lines(shown: str) -> list[str]:
    """What is said, without the headings, whose ids differ."""
    kept = [
        line.rstrip() for line in shown.splitlines()[2:] if " run " not in f" {line} " and "-" not in line
    ]
    return [line for line in kept if line]


def test_show_draws_the_branches(url: str) -> None:
    """The newest path is read straight down, the other hangs beside it."""
    assert lines(show(url, "trip").stdout) == [
        "user",
        "Where to?",
        "├─ branch 1",
        "│  Paris.",
        "│",
        "│  user",
        "│  Why there, of all the places that there are?",
        "│",
        "│  The Louvre, and the cafés that are not far from it.",
        "│",
        "└─ branch 2, the newest",
        "Rome.",
        "user",
        "When?",
        "In May.",
    ]


@pytest.mark.parametrize("columns", [40, 60])
def test_a_branch_fits_the_terminal(url: str, columns: int) -> None:
    """Every line of it has its mark and none is too long."""
    shown = show(url, "trip", columns=columns).stdout.splitlines()
    assert max(map(len, shown)) <= columns
    start, end = shown.index("├─ branch 1"), shown.index("└─ branch 2, the newest")
    assert all(line.startswith("│") for line in shown[start + 1 : end])


def test_show_reads_one_path(url: str) -> None:
    """Without any drawing, with the runs of it alone."""
    shown = show(url, "trip", "--branch", "1").stdout
    assert "Louvre" in shown
    assert "Rome" not in shown
    assert "─" not in shown
    found = json.loads(show(url, "trip", "--branch", "1", "--json").stdout)
    assert [message["content"] for message in found["messages"]][:2] == ["Where to?", "Paris."]
    assert len(found["runs"]) == 2


def test_a_branch_that_is_not_there_is_told(url: str) -> None:
    """One message, exit code 1; a run has none at all."""
    done = show(url, "trip", "--branch", "3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "The conversation has no branch '3'; choose one of 1, 2" in done.stderr
    run = json.loads(show(url, "trip", "--json").stdout)["runs"][0]["id"]
    done = show(url, run, "--branch", "1")
    assert done.exit_code == 1
    assert "show conversation trip with --branch" in done.stderr
