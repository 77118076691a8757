"""A conversation as a tree: which of its branches is the newest, what each is called, and how it is laid out.

The newest branch (`recorder/storage/newest_branch.py`) is the trunk and is drawn without indent, however often it
forks; the others hang off it. A row is a message, or a run without one, which then has `started_at` and `said_at`.
A branch is named by the choices that lead to it from the first message on: "2.1" is, after the second of the
answers at the first fork, the first at the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recorder.errors import NotFound
from recorder.storage.newest_branch import Place, place_of_message, place_of_run

Row = Mapping[str, Any]

#: What stands before the lines of a branch that is not the newest one.
BESIDE = "│  "
#: The deepest indent, and the longest name, that is drawn (characters): a stranger's tree may hang by ten thousands of
#: forks, and each line of it would be as long as it is deep.
_DEEPEST, _LONGEST = 60, 600
#: How many names an error names.
_NAMED = 30


@dataclass(slots=True, eq=False)
class _Node:
    row: Row
    #: Where the newest of what is here or below stands.
    newest: Place
    below: list[_Node] = field(default_factory=list)


class Fork(NamedTuple):
    """Where a branch begins."""

    indent: str
    #: "2.1"
    name: str
    newest: bool


class Said(NamedTuple):
    """A message where it stands."""

    indent: str
    row: Row


def is_linear(messages: Sequence[Row]) -> bool:
    """Whether each message has at most one answer."""
    return not any(isinstance(step, Fork) for step in laid_out(messages))


def newest_path(messages: Sequence[Row]) -> list[Row]:
    """The messages from the first to the newest one, each the answer to the one before."""
    return [step.row for step in laid_out(messages) if isinstance(step, Said) and not step.indent]


def path_of(messages: Sequence[Row], name: str) -> list[Row]:
    """The path through the branch of this name, below it the newest. Raises `NotFound` with the names there are."""
    wanted = name.split(".")
    path: list[Row] = []
    here = _roots(messages)
    while here:
        if len(here) == 1:
            node = here[0]
        elif wanted:
            by_number = {str(number): node for number, node in enumerate(here, 1)}
            node = by_number.get(wanted.pop(0)) or _unknown(name, messages)
        else:
            node = _newest(here)
        path.append(node.row)
        here = node.below
    return _unknown(name, messages) if wanted else path


def laid_out(messages: Sequence[Row]) -> Iterator[Fork | Said]:
    """The tree in the order in which it is drawn: at each fork the newest branch comes last and goes on.

    `messages` are in reading order: each after its parent.
    """
    # A loop, for a conversation may be longer than Python calls.
    todo = _steps(_roots(messages), "", "")
    while todo:
        step, name = todo.pop()
        if isinstance(step, Fork):
            yield step
            continue
        indent, node = step
        yield Said(indent, node.row)
        todo += _steps(node.below, indent, name)


def _steps(siblings: list[_Node], indent: str, name: str) -> list[tuple[Any, str]]:
    """What to draw of siblings, the first at the end."""
    if len(siblings) < 2:
        return [((indent, node), name) for node in siblings]
    newest = _newest(siblings)
    found: list[tuple[Any, str]] = []
    # Numbered from 1 in the order in which they were made, as in SQL.
    for number, node in sorted(enumerate(siblings, 1), key=lambda pair: pair[1] is newest):
        below = f"{name}.{number}".removeprefix(".") if len(name) < _LONGEST else name
        found.append((Fork(indent, below, node is newest), below))
        is_beside = node is not newest and len(indent) < _DEEPEST
        found.append(((indent + BESIDE if is_beside else indent, node), below))
    return found[::-1]


def _roots(messages: Sequence[Row]) -> list[_Node]:
    """The messages without a parent that is stored, each with all below it."""
    nodes = [_Node(row, _place(row)) for row in messages]
    by_id = {node.row["message_id"]: node for node in nodes if node.row["message_id"]}
    roots: list[_Node] = []
    for node in nodes:
        parent = by_id.get(node.row["parent_id"])
        (roots if parent is None else parent.below).append(node)
    for node in reversed(nodes):  # each after all below it
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
    there = f"there are {', '.join(names[:_NAMED] + more)}" if names else "the conversation has none"
    raise NotFound(f"There is no branch {name!r}: {there}")
