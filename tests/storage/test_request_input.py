"""The columns `instructions` and `input` of a run."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from recorder.errors import StoreError
from recorder.messages import AIMessage, HumanMessage, SystemMessage
from recorder.storage.request_input import (
    WHOLE_PATH,
    checked_ids,
    context_row,
    decoded_input,
    encoded_input,
    instructions_of,
)
from recorder.storage.stored_messages import StoredMessage

START = datetime(2026, 11, 28, tzinfo=UTC)


def at(position: int) -> StoredMessage:
    """The message of a path at this position."""
    id = str(uuid.UUID(int=position))
    return StoredMessage("c", id, None, position, "user", START, position)


PATH = [at(position) for position in range(9)]
SUMMARY = context_row("c", HumanMessage("A summary."), START)
FOREIGN = at(77)


@pytest.mark.parametrize(
    ("sent", "column"),
    [
        (PATH[:3], None),
        (PATH[2:3], '["2"]'),
        (PATH[2:9], '["2-8"]'),
        ([*PATH[:2], *PATH[5:7], PATH[8]], '["0-1","5-6","8"]'),
        ([SUMMARY, *PATH[7:9]], f'["{SUMMARY.id}","7-8"]'),
        ([PATH[0], FOREIGN, PATH[1]], f'["0","{FOREIGN.id}","1"]'),
        ([], "[]"),
    ],
)
def test_an_input_is_as_short_as_its_stretches(sent: list[StoredMessage], column: str | None) -> None:
    """Messages of the path are positions; what is not on it is an id."""
    assert encoded_input(sent, PATH) == column


def test_an_input_is_read_as_it_was_written() -> None:
    """None is the whole path."""
    assert decoded_input(None) == WHOLE_PATH
    found = decoded_input([SUMMARY.id, "7-8", "11"])
    assert (found.items, found.ids, found.first) == ([SUMMARY.id, (7, 8), (11, 11)], [SUMMARY.id], 7)


@pytest.mark.parametrize(
    "item", ["", "x", "-1", "1-", "2-1", "1-2-3", "²", 7.5, None, {}, "1" * 36, "9" * 19]
)
def test_a_damaged_input_is_told(item: object) -> None:
    """Text that is neither an id nor positions."""
    with pytest.raises(StoreError, match="the row is damaged"):
        decoded_input([item])


def test_positions_must_ascend() -> None:
    """An input that names the same messages again and again could fill the memory."""
    with pytest.raises(StoreError, match="the row is damaged"):
        decoded_input(["0-99", "50-120"])


def test_instructions_are_ids() -> None:
    """Another program may have written something else."""
    assert checked_ids([SUMMARY.id]) == [SUMMARY.id]
    assert checked_ids(None) == []
    with pytest.raises(StoreError, match="the row is damaged"):
        checked_ids(["x"])


def test_only_leading_system_messages_are_instructions() -> None:
    """A system message between others is a message of the conversation."""
    first, later = SystemMessage("Be kind."), SystemMessage("Be brief.")
    assert instructions_of([first, HumanMessage("Hi"), later, AIMessage("Hello")]) == [first]
    assert instructions_of([first, later]) == [first, later]
