"""The handler of recorder's own models, given to LangChain, raises one clear error instead of recording nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback, ConfigError
from tests.oracle import new_url

fakes: Any = pytest.importorskip("langchain_core.language_models.fake_chat_models")

refused = pytest.raises(ConfigError, match=r"use recorder\.integrations\.langchain\.ChatHistoryCallback")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[ChatHistoryCallback]:
    """Yield a recorder that is closed afterwards."""
    with ChatHistoryCallback(new_url(tmp_path)) as history:
        yield history


def model() -> Any:
    """Return a model of LangChain."""
    return fakes.FakeListChatModel(responses=["Hello"])


def test_a_call_with_the_handler_in_its_config_raises(history: ChatHistoryCallback) -> None:
    """The error names the class for LangChain."""
    with refused:
        model().invoke("Hi", config={"callbacks": [history]})


def test_an_asynchronous_call_raises(history: ChatHistoryCallback) -> None:
    """Also where LangChain would log the error only."""
    with refused:
        asyncio.run(model().ainvoke("Hi", config={"callbacks": [history]}))


def test_a_chain_raises(history: ChatHistoryCallback) -> None:
    """At its start, before the model is called."""
    runnables = pytest.importorskip("langchain_core.runnables")
    with refused:
        (runnables.RunnableLambda(str.upper) | model()).invoke("Hi", config={"callbacks": [history]})


def test_a_constructor_refuses_the_handler(history: ChatHistoryCallback) -> None:
    """LangChain's own check does that."""
    with pytest.raises(ValueError, match="BaseCallbackHandler"):
        fakes.FakeListChatModel(responses=["Hello"], callbacks=[history])
