"""The pieces in which a large batch is inserted, in one transaction: while the database inserts one of them, the
messages of the next one get their places, and its statement is built.

The messages of a conversation are in one piece, because their places depend on each other, and the pieces are sorted by
conversation. So the rows of messages have the same order as in one statement, and two writers never lock them in
opposite order. Rows that belong to no message come with the first piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from recorder.storage.batch import Addition, Batch, Part, RunRows
from recorder.storage.dialects import Dialect, Insert, Statements
from recorder.storage.inserts import inserts_of, rows_of
from recorder.storage.message_lookups import Known
from recorder.storage.message_tree import settle, thread

#: The least messages of a piece: a statement takes a millisecond, whatever it stores.
LEAST_MESSAGES = 1_000
#: The most pieces of a batch: each costs two round trips to a server.
MOST_PIECES = 8
#: The messages of a piece get their places in so many steps; between two of them the driver goes on.
_STEPS = 4


class BatchPiece(NamedTuple):
    """Some parts of a batch."""

    #: In the order of the batch.
    parts: Sequence[Part]
    #: Those whose messages have no places yet, in groups. All parts of a conversation are in one group.
    groups: Sequence[Sequence[Part]]


def statements_of(batch: Batch, known: Known, dialect: Dialect) -> Iterator[Statements | None]:
    """The statements of each piece; None before each piece but the first one, and between the steps of computing it."""
    pieces = pieces_of(batch)
    for number, piece in enumerate(pieces, 1):
        for group in piece.groups:
            if number > 1:
                yield None
            settle(group, thread(group, known))
        if number > 1:
            yield None
        announce = number == len(pieces) and bool(batch.parts)
        yield dialect.statements(_inserts(batch, piece, is_first=number == 1), announce=announce)


def pieces_of(batch: Batch) -> list[BatchPiece]:
    """The pieces of a batch; one if it is small, or if places in one conversation depend on another."""
    parts = batch.parts
    sizes = _messages_by_conversation(parts)
    size = max(LEAST_MESSAGES, sum(sizes.values()) // MOST_PIECES + 1)
    if sum(sizes.values()) <= LEAST_MESSAGES or any(map(_may_move, parts)):
        return [BatchPiece(parts, [_unthreaded(parts)])]
    piece_of = _numbered(sizes, size)
    group_of = _numbered(sizes, size // _STEPS + 1)
    found: list[list[Part]] = [[] for _ in range(max(piece_of.values()) + 1)]
    for part in parts:
        found[piece_of.get(_conversation_of(part), 0)].append(part)
    return [BatchPiece(each, _groups(each, group_of)) for each in found]


def _inserts(batch: Batch, piece: BatchPiece, *, is_first: bool) -> list[Insert]:
    runs = [part for part in piece.parts if isinstance(part, RunRows)]
    additions = [part for part in piece.parts if isinstance(part, Addition)]
    own = replace(batch, runs=runs, additions=additions)
    return inserts_of(batch, own) if is_first else rows_of(own)


def _messages_by_conversation(parts: Sequence[Part]) -> dict[str, int]:
    """How many messages each conversation has in this batch; none of a conversation without messages."""
    found: dict[str, int] = {}
    for part in parts:
        if count := _messages_in(part):
            id = _conversation_of(part)
            found[id] = found.get(id, 0) + count
    return dict(sorted(found.items()))


def _messages_in(part: Part) -> int:
    """How many messages it stores, as far as one can tell before they have their places."""
    if isinstance(part, Addition):
        return len(part.added)
    replies = len(part.seal.end.replies) if part.seal is not None else 0
    return replies + (part.opens and not part.start.is_step)


def _conversation_of(part: Part) -> str:
    return part.conversation_id if isinstance(part, Addition) else part.start.conversation_id


def _may_move(part: Part) -> bool:
    """Whether its conversation is found by what is stored, or its place by a response of any conversation."""
    return isinstance(part, RunRows) and (part.start.unnamed is not None or part.start.previous is not None)


def _numbered(sizes: dict[str, int], size: int) -> dict[str, int]:
    """A number for each conversation, so that those with the same number have `size` messages together, or a few
    more."""
    found: dict[str, int] = {}
    number = count = 0
    for id, messages in sizes.items():
        if count >= size:
            number, count = number + 1, 0
        found[id] = number
        count += messages
    return found


def _unthreaded(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if not part.threaded]


def _groups(parts: Sequence[Part], group_of: dict[str, int]) -> list[list[Part]]:
    found: dict[int, list[Part]] = {}
    for part in _unthreaded(parts):
        found.setdefault(group_of.get(_conversation_of(part), 0), []).append(part)
    return list(found.values())
