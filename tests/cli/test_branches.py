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
    """Parse messages from `id<parent@time ...`, in reading order."""
    rows: list[dict[str, Any]] = []
    for spec in text.split():
        name, _, rest = spec.partition("<")
        parent, _, time = rest.partition("@")
        position = next((row["position"] + 1 for row in rows if row["message_id"] == parent), 0)
        rows.append(
            {"message_id": name, "parent_id": parent or None, "position": position, "created_at": int(time)}
        )
    return rows


def drawn(messages: list[dict[str, Any]]) -> list[str]:
    """Return the depth and the name of each step of the drawing."""
    return [
        f"{len(step.indent) // 3}:{step.name if isinstance(step, Fork) else step.row['message_id']}"
        for step in laid_out(messages)
    ]


LINE = tree("a<@1 b<a@2 c<b@3")
#: b and e answer a; d is the newest message, so that the newest path goes through b.
FORKED = tree("a<@1 b<a@2 c<b@3 d<b@9 e<a@4 f<e@5 g<f@6 h<f@7")


def test_a_conversation_without_branches_is_drawn_without_indent() -> None:
    """Each message is drawn once, in order."""
    assert drawn(LINE) == ["0:a", "0:b", "0:c"]
    assert is_linear(LINE)
    assert newest_path(LINE) == LINE


def test_the_newest_branch_is_drawn_last_and_without_indent() -> None:
    """At each fork older branches are indented and come first; a branch is numbered by its first answer's age."""
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
def test_a_path_goes_through_the_named_branch(name: str, path: str) -> None:
    """Below the named branch the path follows the newest branch."""
    assert [row["message_id"] for row in path_of(FORKED, name)] == path.split()


@pytest.mark.parametrize("name", ["3", "1.3", "1.1.1", "", "x", "1.", "2.2.2"])
def test_an_unknown_branch_is_refused_with_the_existing_names(name: str) -> None:
    """The error lists the names of all branches, or says that there are none."""
    with pytest.raises(NotFound, match=r"choose one of 2, 2\.1, 2\.2, 1, 1\.1, 1\.2"):
        path_of(FORKED, name)
    with pytest.raises(NotFound, match="because it has no branches"):
        path_of(LINE, "1")


def test_an_empty_conversation_has_an_empty_path() -> None:
    """It counts as a conversation without branches."""
    assert newest_path([]) == []
    assert is_linear([])


def test_a_message_without_a_stored_parent_begins_the_conversation() -> None:
    """Two such messages are two branches."""
    assert drawn(tree("a<@1 b<gone@2")) == ["0:1", "1:a", "0:2", "0:b"]


def run_without_message(parent: str | None, status: str, *, said_at: int, started_at: int) -> dict[str, Any]:
    """Return a run that has no message, below the message with this id."""
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
    """It is newest if no message was inserted after its start; a run that has ended is not."""
    messages = [*tree("a<@1 b<a@2"), run_without_message("a", status, said_at=said_at, started_at=5)]
    [_, last] = newest_path(messages)
    assert (last["message_id"] or last["run_id"]) == newest


def test_the_last_failed_run_below_the_newest_message_is_on_the_newest_branch() -> None:
    """Three runs answered the same message, and all failed."""
    attempts = [run_without_message("a", "error", said_at=1, started_at=time) for time in (3, 9, 5)]
    assert [row.get("run_id") for row in newest_path([*tree("a<@1"), *attempts])] == [None, "009"]
    assert [row["run_id"] for row in newest_path(attempts)] == ["009"]


def test_nested_forks_do_not_grow_indents_and_names_without_limit() -> None:
    """Each of 5,000 forks is inside of the one before; indents and names have a maximal length."""
    count = 5_000
    specs = ["0<@1"]
    for number in range(1, count):
        specs += [f"{number}<{number - 1}@{number + 1}", f"x{number}<{number - 1}@{3 * count - number}"]
    steps = list(laid_out(tree_of(specs)))
    assert sum(not isinstance(step, Fork) for step in steps) == 2 * count - 1
    assert max(len(step.indent) for step in steps) <= 63
    assert max(len(step.name) for step in steps if isinstance(step, Fork)) <= 610


def tree_of(specs: list[str]) -> list[dict[str, Any]]:
    """Parse messages as `tree` does, but without positions, which takes less time."""
    rows: list[dict[str, Any]] = []
    for spec in specs:
        name, _, rest = spec.partition("<")
        parent, _, time = rest.partition("@")
        rows.append({"message_id": name, "parent_id": parent or None, "position": 0, "created_at": int(time)})
    return rows


def test_a_conversation_of_3000_forks_has_a_newest_path() -> None:
    """The depth of a conversation has no limit."""
    assert len(newest_path(tree_of_pairs(3000))) == 3000


def tree_of_pairs(length: int) -> list[dict[str, Any]]:
    """Return a path of messages, each with a sibling that has no answer."""
    rows: list[dict[str, Any]] = []
    for number in range(length):
        parent = f"m{number - 1}" if number else None
        for name, time in ((f"x{number}", 2 * number), (f"m{number}", 2 * number + 1)):
            rows.append({"message_id": name, "parent_id": parent, "position": number, "created_at": time})
    return rows


# -- as `recorder show` prints it ----------------------------------------------------------------------------


def show(url: str, *arguments: str, columns: int = 80) -> Result:
    """Run `recorder show`."""
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", "RECORDER_URL": url}
    return CliRunner().invoke(app, ["show", *arguments], env=environment)


def say(history: ChatHistoryCallback, *messages: BaseMessage, reply: str) -> AIMessage:
    """Record one turn of the conversation `trip`, and return its reply."""
    record(history, *messages, reply=reply, metadata={"conversation_id": "trip"})
    return AIMessage(reply)


@pytest.fixture
def url(database: str) -> str:
    """Return the URL of a database in which one question has two answers, and both have follow-up questions."""
    url = database
    where, why = HumanMessage("Where to?"), HumanMessage("Why there, of all the places that there are?")
    with ChatHistoryCallback(url) as history:
        paris = say(history, where, reply="Paris.")
        rome = say(history, where, reply="Rome.")
        say(history, where, paris, why, reply="The Louvre, and the cafés that are not far from it.")
        say(history, where, rome, HumanMessage("When?"), reply="In May.")
    return url


def texts(shown: str) -> list[str]:
    """Return the shown texts without the headings, whose ids differ."""
    shown_lines = [
        line.rstrip() for line in shown.splitlines()[2:] if " run " not in f" {line} " and "-" not in line
    ]
    return [line for line in shown_lines if line]


def test_show_draws_the_branches(url: str) -> None:
    """The newest branch has no indent; the other one is drawn beside it."""
    assert texts(show(url, "trip").stdout) == [
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
    """Every line of a branch has its mark, and no line is wider than the terminal."""
    shown = show(url, "trip", columns=columns).stdout.splitlines()
    assert max(map(len, shown)) <= columns
    start, end = shown.index("├─ branch 1"), shown.index("└─ branch 2, the newest")
    assert all(line.startswith("│") for line in shown[start + 1 : end])


def test_show_prints_one_branch_without_a_drawing(url: str) -> None:
    """`--branch` prints the messages and runs of that branch only."""
    shown = show(url, "trip", "--branch", "1").stdout
    assert "Louvre" in shown
    assert "Rome" not in shown
    assert "─" not in shown
    found = json.loads(show(url, "trip", "--branch", "1", "--json").stdout)
    assert [message["content"] for message in found["messages"]][:2] == ["Where to?", "Paris."]
    assert len(found["runs"]) == 2


def test_an_unknown_branch_is_an_error(url: str) -> None:
    """The message names the branches, and the exit code is 1; a run has no branches at all."""
    done = show(url, "trip", "--branch", "3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "The conversation has no branch '3'; choose one of 1, 2" in done.stderr
    run = json.loads(show(url, "trip", "--json").stdout)["runs"][0]["id"]
    done = show(url, run, "--branch", "1")
    assert done.exit_code == 1
    assert "show conversation trip with --branch" in done.stderr
