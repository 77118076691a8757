"""A conversation as a tree: the names of its branches, the newest of them, and the order in which they are drawn.

The newest branch (`recorder/storage/newest_branch.py`) is drawn without indent; the other branches are indented below
their fork. A row is a message, or a run without a message, which has `started_at` and `said_at`. The name of a branch
lists the choice at each fork, from the first message on: "2.1" takes the second answer at the first fork, and then the
first answer at the next fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recorder.errors import NotFound
from recorder.storage.newest_branch import Place, place_of_message, place_of_run

Row = Mapping[str, Any]

#: The indent of a branch that is not the newest one; one for each level.
BESIDE = "│  "
#: The deepest indent and the longest name that are drawn (characters). A file from somebody else may have ten thousands
#: of forks below each other, and each line would be as long as it is deep.
_DEEPEST, _LONGEST = 60, 600
#: How many branches an error message lists.
_NAMED = 30


@dataclass(slots=True, eq=False)
class _Node:
    row: Row
    #: The place of the newest row in this subtree.
    newest: Place
    below: list[_Node] = field(default_factory=list)


class Fork(NamedTuple):
    """The start of a branch."""

    indent: str
    #: "2.1"
    name: str
    newest: bool


class IndentedMessage(NamedTuple):
    """A message, or a run without one, with the indent of its branch."""

    indent: str
    row: Row


def is_linear(messages: Sequence[Row]) -> bool:
    """Whether the conversation has no forks."""
    return not any(isinstance(step, Fork) for step in laid_out(messages))


def newest_path(messages: Sequence[Row]) -> list[Row]:
    """The messages from the first to the newest one, each the answer to the one before."""
    return [step.row for step in laid_out(messages) if isinstance(step, IndentedMessage) and not step.indent]


def path_of(messages: Sequence[Row], name: str) -> list[Row]:
    """The messages of the branch `name`; below it, the newest branch. Raises `NotFound`, which lists the branches."""
    choices = name.split(".")
    path: list[Row] = []
    here = _roots(messages)
    while here:
        if len(here) == 1:
            node = here[0]
        elif choices:
            by_number = {str(number): node for number, node in enumerate(here, 1)}
            node = by_number.get(choices.pop(0)) or _unknown(name, messages)
        else:
            node = _newest(here)
        path.append(node.row)
        here = node.below
    return _unknown(name, messages) if choices else path


def laid_out(messages: Sequence[Row]) -> Iterator[Fork | IndentedMessage]:
    """The tree in the order in which it is drawn: at each fork the newest branch comes last.

    In `messages` each row comes after its parent.
    """
    # A loop and not a recursion: a conversation may be deeper than Python's recursion limit.
    todo = _steps(_roots(messages), "", "")
    while todo:
        step, name = todo.pop()
        if isinstance(step, Fork):
            yield step
            continue
        indent, node = step
        yield IndentedMessage(indent, node.row)
        todo += _steps(node.below, indent, name)


def _steps(siblings: list[_Node], indent: str, name: str) -> list[tuple[Any, str]]:
    """The steps that draw the siblings, in reverse order, as a stack; each with the name of its branch."""
    if len(siblings) < 2:
        return [((indent, node), name) for node in siblings]
    newest = _newest(siblings)
    found: list[tuple[Any, str]] = []
    # Branches are numbered from 1 in the order in which they were stored, like the column `branch` of the views.
    for number, node in sorted(enumerate(siblings, 1), key=lambda pair: pair[1] is newest):
        below = f"{name}.{number}".removeprefix(".") if len(name) < _LONGEST else name
        found.append((Fork(indent, below, node is newest), below))
        is_beside = node is not newest and len(indent) < _DEEPEST
        found.append(((indent + BESIDE if is_beside else indent, node), below))
    return found[::-1]


def _roots(messages: Sequence[Row]) -> list[_Node]:
    """The messages whose parent is not stored, each as a tree."""
    nodes = [_Node(row, _place(row)) for row in messages]
    by_id = {node.row["message_id"]: node for node in nodes if node.row["message_id"]}
    roots: list[_Node] = []
    for node in nodes:
        parent = by_id.get(node.row["parent_id"])
        (roots if parent is None else parent.below).append(node)
    for node in reversed(nodes):  # children before their parents
        node.newest = max([node.newest, *(each.newest for each in node.below)])
    return roots


def _place(row: Row) -> Place:
    if row["message_id"]:
        return place_of_message(row["created_at"], row["position"], row["message_id"])
    return place_of_run(row["status"], row["said_at"], row["started_at"], row["run_id"])


def _newest(siblings: list[_Node]) -> _Node:
    return max(siblings, key=lambda node: node.newest)


def _unknown(name: str, messages: Sequence[Row]) -> Any:
    names = [step.name for step in laid_out(messages) if isinstance(step, Fork)]
    more = ["..."] if len(names) > _NAMED else []
    if not names:
        raise NotFound(
            f"The conversation has no branch {name!r}, because it has no branches; leave --branch out"
        )
    raise NotFound(
        f"The conversation has no branch {name!r}; choose one of {', '.join(names[:_NAMED] + more)}"
    )
