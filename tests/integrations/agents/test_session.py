"""`Session` is a memory of OpenAI Agents over a recorded conversation, beside the client that records it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

import recorder
from recorder.errors import Closed, ConfigError
from recorder.integrations.agents import Session
from recorder.integrations.agents.items import grouped, items_of, messages_of
from recorder.replay import Replay
from tests.oracle import new_url, sql

T = TypeVar("T")

#: Items of many types: those that a message holds, and those that it cannot hold.
ITEMS: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "developer", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "data:,"}],
    },
    {
        "id": "rs_1", "type": "reasoning", "encrypted_content": "x",
        "summary": [{"type": "summary_text", "text": "Hm"}],
    },
    {
        "id": "fc_1", "type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":  1}',
        "status": "completed",
    },
    {"id": "fc_2", "type": "function_call", "call_id": "c2", "name": "add", "arguments": "{broken"},
    {"type": "function_call_output", "call_id": "c1", "output": "2"},
    {
        "type": "function_call_output", "call_id": "c2", "status": "completed",
        "output": [{"type": "input_text", "text": "no"}],
    },
    {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
    {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Two.", "annotations": [], "logprobs": []}],
    },
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "y"},
    {"type": "custom_tool_call", "call_id": "c3", "name": "shell", "input": "ls  -l"},
    {"type": "custom_tool_call_output", "call_id": "c3", "output": "a b"},
    {"type": "item_reference", "id": "msg_7"},
    {"type": "mcp_approval_response", "approval_request_id": "a1", "approve": True},
    {"role": "user", "content": "Bye"},
]  # fmt: skip


def use(url: str, steps: Callable[[Session], Awaitable[T]], **options: Any) -> T:
    """Return what the steps return with a session of the conversation c1."""

    async def run() -> T:
        async with recorder.ChatHistoryCallback(url) as history:
            return await steps(Session("c1", history, **options))

    return asyncio.run(run())


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


# -- items ---------------------------------------------------------------------------------------------------------


def test_all_items_come_back_unchanged(url: str) -> None:
    """Items of every type are equal to those that were added, also in another process."""

    async def add(session: Session) -> list[Any]:
        await session.add_items(ITEMS)
        return await session.get_items()

    async def get(session: Session) -> list[Any]:
        return await session.get_items()

    assert use(url, add) == ITEMS
    assert use(url, get) == ITEMS


def test_items_that_are_added_one_by_one_come_back_unchanged(url: str) -> None:
    """It makes no difference how many items a call adds."""

    async def add(session: Session) -> list[Any]:
        for item in ITEMS:
            await session.add_items([item])
        return await session.get_items()

    assert use(url, add) == ITEMS


def test_plain_items_are_stored_as_plain_messages(url: str) -> None:
    """What a message can hold has no copy beside it."""
    plain = [
        {"role": "user", "content": "Hi"},
        {"call_id": "c1", "output": "2", "type": "function_call_output"},
    ]
    assert [message.additional_kwargs for message in messages_of(plain)] == [{}, {}]
    assert [item for message in messages_of(plain) for item in items_of(message)] == plain


def test_consecutive_items_of_the_model_are_one_message() -> None:
    """As in a recorded reply."""
    assert [len(group) for group in grouped(ITEMS)] == [1, 1, 1, 3, 1, 1, 4, 1, 1, 1, 1]


def test_what_the_application_changes_later_is_not_stored(url: str) -> None:
    """Items are copied when they are added, and when they are read."""
    item = {"role": "user", "content": [{"type": "input_text", "text": "Hi"}], "more": [1]}

    async def change(session: Session) -> list[Any]:
        await session.add_items([item])
        item["more"].append(2)  # type: ignore[attr-defined]
        (await session.get_items())[0]["more"].append(3)
        return await session.get_items()

    assert use(url, change) == [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}], "more": [1]}
    ]


def test_a_limit_returns_the_last_items(url: str) -> None:
    """`get_items(2)`, and the limit of the settings."""

    class Settings:
        limit = 1

    async def get(session: Session) -> list[int]:
        await session.add_items(ITEMS)
        return [len(await session.get_items(*given)) for given in ((2,), (0,), (), (99,))]

    assert use(url, get, session_settings=Settings()) == [2, 0, 1, len(ITEMS)]


# -- pop and clear -------------------------------------------------------------------------------------------------


def test_pop_returns_the_last_item_and_keeps_the_record(url: str) -> None:
    """Each pop removes one item of the memory, also of a message with several; the messages stay stored."""

    async def pop(session: Session) -> tuple[list[Any], list[Any]]:
        await session.add_items(ITEMS[:6])
        popped = [await session.pop_item() for _ in range(2)]
        await session.add_items([{"role": "user", "content": "Other"}])
        return popped, await session.get_items()

    popped, rest = use(url, pop)
    assert popped == [ITEMS[5], ITEMS[4]]
    assert rest == [*ITEMS[:4], {"role": "user", "content": "Other"}]
    with Replay(url) as replay:
        assert [message.role for message in replay.messages("c1")] == [
            "user", "system", "user", "assistant", "system", "system", "user",
        ]  # fmt: skip


def test_pop_of_an_empty_memory_is_none(url: str) -> None:
    """Nothing is stored then."""

    async def pop(session: Session) -> Any:
        return await session.pop_item()

    assert use(url, pop) is None
    assert sql(url, "SELECT count(*) FROM messages") == [(0,)]


def test_after_clear_the_memory_begins_anew(url: str) -> None:
    """The same words are stored again after it; clearing twice is clearing once."""

    async def clear(session: Session) -> list[int]:
        counts = []
        for _ in range(2):
            await session.add_items(ITEMS[:2])
            counts.append(len(await session.get_items()))
            await session.clear_session()
            await session.clear_session()
            counts.append(len(await session.get_items()))
        return counts

    assert use(url, clear) == [2, 0, 2, 0]
    roles = [role for (role,) in sql(url, "SELECT role FROM messages ORDER BY created_at")]
    assert roles == ["user", "system", "system"] * 2


# -- errors --------------------------------------------------------------------------------------------------------


def test_adding_after_the_recorder_was_closed_raises(url: str) -> None:
    """The memory can still be read."""

    async def close(session: Session) -> list[Any]:
        await session.add_items(ITEMS[:1])
        await session._memory.history.close()
        with pytest.raises(Closed):
            await session.add_items(ITEMS[1:])
        return await session.get_items()

    assert use(url, close) == ITEMS[:1]


def test_anything_else_than_a_recorder_is_refused() -> None:
    """The error says what to pass."""
    with pytest.raises(ConfigError, match="pass the ChatHistoryCallback"):
        Session("c1", object())
