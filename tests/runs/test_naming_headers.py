"""`x-recorder-conversation` and `x-recorder-user` name one call, and no provider sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from recorder import ChatHistoryCallback
from recorder.models import AzureChatOpenAI, ChatAnthropic, ChatOpenAI, OpenAI
from recorder.runs.naming_headers import split_headers
from recorder.testing import LoopbackProvider
from tests.oracle import new_url, sql

HEADERS = {"X-Recorder-Conversation": "c-1", "x-recorder-user": "ada", "x-mine": "kept"}


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """A provider that answers all formats."""
    with LoopbackProvider("Hello") as provider:
        yield provider


def model_of(name: str, provider: LoopbackProvider, **options: Any) -> Any:
    """A model of each kind."""
    if name == "anthropic":
        return ChatAnthropic(base_url=provider.url, api_key="any", **options)
    if name == "azure":
        return AzureChatOpenAI(
            azure_deployment="d", azure_endpoint=provider.url, api_version="1", api_key="any", **options
        )
    kind = {"chat": ChatOpenAI, "completion": OpenAI}[name]
    return kind(base_url=provider.base_url, api_key="any", **options)


def named(url: str) -> list[tuple[str, str | None]]:
    """The conversation and the user of each run."""
    query = "SELECT c.id, c.user_id FROM runs AS r JOIN conversations AS c ON c.id = r.conversation_id"
    return sql(url, f"{query} ORDER BY r.started_at")


def assert_not_sent(provider: LoopbackProvider) -> None:
    """No request had a naming header; each had the other one."""
    assert provider.requests
    for request in provider.requests:
        assert not [name for name in request["headers"] if name.startswith("x-recorder")]
        assert request["headers"]["x-mine"] == "kept"


@pytest.mark.parametrize("name", ["chat", "completion", "anthropic", "azure"])
def test_the_headers_of_a_call_name_its_conversation_and_user(
    name: str, provider: LoopbackProvider, database: str
) -> None:
    """Streamed and not, on a loop and off it, in the call and bound to the model."""
    with ChatHistoryCallback(database, conversation_id="default") as history:
        model = model_of(name, provider, callbacks=[history])
        model.invoke("Hi", extra_headers=HEADERS)
        list(model.stream("Hi", extra_headers=HEADERS))
        asyncio.run(model.bind(extra_headers=HEADERS).ainvoke("Hi"))
    assert named(database) == [("c-1", "ada")] * 3
    assert_not_sent(provider)


@pytest.mark.parametrize("name", ["chat", "completion", "anthropic", "azure"])
def test_the_headers_of_a_client_name_all_its_calls(
    name: str, provider: LoopbackProvider, database: str
) -> None:
    """Metadata of the call, under any of the keys for a conversation, and headers of the call override them."""
    with ChatHistoryCallback(database) as history:
        model = model_of(name, provider, callbacks=[history], default_headers=HEADERS)
        model.invoke("Hi")
        asyncio.run(model.ainvoke("Hi", {"metadata": {"session_id": "c-2", "user_id": "bob"}}))
        model.invoke("Hi", {"metadata": {"user_id": "bob"}}, extra_headers={"x-recorder-conversation": "c-3"})
    assert named(database) == [("c-1", "ada"), ("c-2", "bob"), ("c-3", "bob")]
    assert_not_sent(provider)


def test_without_a_recorder_the_headers_are_removed_as_well(provider: LoopbackProvider) -> None:
    """They concern nobody else."""
    model_of("chat", provider).invoke("Hi", extra_headers=HEADERS)
    assert_not_sent(provider)


def test_values_that_name_nothing_are_removed() -> None:
    """The SDK's marker for a header that is left out, an empty text; bytes are text."""
    headers = {
        "x-recorder-conversation": openai.omit,
        "X-RECORDER-USER": b"\xc3\xa9ve",
        "x-recorder-run": "7",
    }
    assert split_headers(headers) == ({"x-recorder-run": "7"}, {"user_id": "éve"})
    assert split_headers({"x-recorder-user": "", 7: "x"}) == ({7: "x"}, {})  # type: ignore[dict-item, comparison-overlap]


def test_a_long_conversation_id_in_a_header_is_replaced(provider: LoopbackProvider, tmp_path: Any) -> None:
    """As in metadata: the call goes on, and the run is stored under a new id."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        model = model_of("chat", provider, callbacks=[history])
        model.invoke("Hi", extra_headers={"x-recorder-conversation": "x" * 999})
        assert history.stats().replaced_ids == 1
    assert len(named(url)[0][0]) == 36
