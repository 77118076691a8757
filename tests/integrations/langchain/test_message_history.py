"""`ChatMessageHistory` reads and continues a recorded conversation, beside the handler that records it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import recorder
from recorder.errors import Closed, ConfigError, StoreError
from recorder.replay import Replay
from recorder.testing import LoopbackProvider, scripted
from tests.integrations.langchain.ways import async_model_of, model_of
from tests.oracle import new_url, sql

pytestmark = pytest.mark.filterwarnings(
    "ignore:RunnableWithMessageHistory is deprecated:langchain_core._api.LangChainDeprecationWarning"
)
langchain: Any = pytest.importorskip("recorder.integrations.langchain")
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from langchain_core.runnables.history import RunnableWithMessageHistory  # noqa: E402

CONFIG: Any = {"configurable": {"session_id": "c1"}}
PROMPT = ChatPromptTemplate([("system", "Be brief."), MessagesPlaceholder("past"), ("user", "{question}")])


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


@pytest.fixture
def history(url: str) -> Iterator[Any]:
    """Yield LangChain's handler, which is closed afterwards."""
    with langchain.ChatHistoryCallback(url) as history:
        yield history


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that gives the answers of a short chat."""
    with LoopbackProvider(scripted("One.", "Two.", "One.", "Four.")) as provider:
        yield provider


def with_memory(runnable: Any, history: Any, **keys: Any) -> Any:
    """Return a runnable with the memory of recorder."""
    return RunnableWithMessageHistory(runnable, lambda id: langchain.ChatMessageHistory(id, history), **keys)


def stored(url: str) -> list[tuple[str, str]]:
    """Return the role and the text of each stored message, in the order of their times."""
    return sql(url, "SELECT role, content FROM messages ORDER BY created_at")


def shown(messages: list[Any]) -> list[tuple[str, Any]]:
    """Return the type and the content of messages."""
    return [(message.type, message.content) for message in messages]


MODELS = pytest.mark.parametrize("model", ["ChatOpenAI", "ChatOpenAI over Responses", "ChatAnthropic"])
TWO_TURNS = [("user", "First?"), ("assistant", "One."), ("user", "Second?"), ("assistant", "Two.")]


# -- beside the handler --------------------------------------------------------------------------------------------


@MODELS
def test_each_message_is_stored_once_beside_the_handler(
    model: str, url: str, history: Any, provider: LoopbackProvider
) -> None:
    """A chain with a prompt, a memory and our handler: the model gets the past, and nothing is stored twice."""
    with model_of(model, provider.url, callbacks=[history]) as chat:
        keys = {"input_messages_key": "question", "history_messages_key": "past"}
        chain = with_memory(PROMPT | chat, history, **keys)
        for question in ("First?", "Second?"):
            chain.invoke({"question": question}, CONFIG)
    assert stored(url) == TWO_TURNS
    sent = provider.requests[1]["body"]
    assert [each["role"] for each in sent.get("messages") or sent["input"]][-3:] == [
        "user",
        "assistant",
        "user",
    ]


@MODELS
def test_a_model_alone_with_a_memory(model: str, url: str, history: Any, provider: LoopbackProvider) -> None:
    """Without a prompt the memory is read once more before it is added to, and still nothing is stored twice."""
    with model_of(model, provider.url, callbacks=[history]) as chat:
        chain = with_memory(chat, history)
        for question in ("First?", "Second?"):
            chain.invoke([HumanMessage(question)], CONFIG)
    history.flush().wait()
    assert stored(url) == TWO_TURNS


@MODELS
def test_the_same_on_an_event_loop_streamed(
    model: str, url: str, history: Any, provider: LoopbackProvider
) -> None:
    """`astream` uses the asynchronous methods of the memory."""

    async def chat() -> None:
        async with async_model_of(model, provider.url, callbacks=[history]) as model_:
            keys = {"input_messages_key": "question", "history_messages_key": "past"}
            chain = with_memory(PROMPT | model_, history, **keys)
            for question in ("First?", "Second?"):
                async for _ in chain.astream({"question": question}, CONFIG):
                    pass
        await history.flush()

    asyncio.run(chat())
    assert stored(url) == TWO_TURNS


def test_the_same_words_twice_are_two_turns(url: str, history: Any) -> None:
    """A question that is repeated and gets the same answer is stored again, with the handler."""
    with (
        LoopbackProvider("Hello!") as provider,
        model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat,
    ):
        chain = with_memory(chat, history)
        for _ in range(3):
            chain.invoke([HumanMessage("Hi")], CONFIG)
    history.flush().wait()
    assert stored(url) == [("user", "Hi"), ("assistant", "Hello!")] * 3


def test_a_question_in_other_words_is_not_stored_again(
    url: str, history: Any, provider: LoopbackProvider
) -> None:
    """A prompt that changes the question: the memory holds what the model got, and the answer once."""
    prompt = ChatPromptTemplate([MessagesPlaceholder("past"), ("user", "In one word: {question}")])
    with model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat:
        chain = with_memory(
            prompt | chat, history, input_messages_key="question", history_messages_key="past"
        )
        chain.invoke({"question": "First?"}, CONFIG)
    history.flush().wait()
    assert stored(url) == [("user", "In one word: First?"), ("assistant", "One.")]


@pytest.mark.parametrize("order", ["before", "after"])
def test_messages_that_are_added_by_hand(
    order: str, url: str, history: Any, provider: LoopbackProvider
) -> None:
    """`add_user_message` before or after the call, and `add_ai_message` after it, in two turns of the same words."""
    memory = langchain.ChatMessageHistory("c1", history)
    with model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat:
        for _ in range(2):
            if order == "before":
                memory.add_user_message("More?")
                answer = chat.invoke(memory.messages, config={"metadata": {"session_id": "c1"}})
            else:
                asked = [*memory.messages, HumanMessage("More?")]
                answer = chat.invoke(asked, config={"metadata": {"session_id": "c1"}})
                memory.add_user_message("More?")
            memory.add_ai_message(answer)
    history.flush().wait()
    assert stored(url) == [("user", "More?"), ("assistant", "One."), ("user", "More?"), ("assistant", "Two.")]


def test_a_question_that_only_the_memory_adds_is_never_left_out(
    url: str, history: Any, provider: LoopbackProvider
) -> None:
    """The handler records the answers; the user says the same word again and again."""
    memory = langchain.ChatMessageHistory("c1", history)
    with model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat:
        for _ in range(3):
            memory.add_user_message("Go on")
            chat.invoke(memory.messages, config={"metadata": {"session_id": "c1"}})
    history.flush().wait()
    assert [text for role, text in stored(url) if role == "user"] == ["Go on"] * 3


def test_a_question_of_another_process_is_never_left_out(
    url: str, history: Any, provider: LoopbackProvider
) -> None:
    """Another recorder recorded the same words with an answer; the question is new here."""
    with model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat:
        chat.invoke("Go on", config={"metadata": {"session_id": "c1"}})
    history.flush().wait()
    with langchain.ChatHistoryCallback(url) as other:
        langchain.ChatMessageHistory("c1", other).add_user_message("Go on")
        other.flush().wait()
    assert [text for role, text in stored(url) if role == "user"] == ["Go on"] * 2


def test_a_call_of_a_tool_comes_back(url: str, history: Any) -> None:
    """The call and its result are read as LangChain's messages, and are not stored again."""
    call = {"name": "add", "args": {"a": 1}, "id": "call_1", "type": "tool_call"}
    said = [HumanMessage("1+1?"), AIMessage("", tool_calls=[call]), ToolMessage("2", tool_call_id="call_1")]
    memory = langchain.ChatMessageHistory("c1", history)
    memory.add_messages(said)
    assert shown(memory.messages) == shown(said)
    assert memory.messages[1].tool_calls == [call]
    assert memory.messages[2].tool_call_id == "call_1"


# -- without the handler -------------------------------------------------------------------------------------------


def test_a_memory_alone_stores_everything(url: str) -> None:
    """Without a handler on the model the memory stores each turn, also with a recorder of another kind."""
    with recorder.ChatHistoryCallback(url) as history:
        chain = with_memory(RunnableLambda(lambda _: AIMessage("Hello!")), history)
        for _ in range(2):
            chain.invoke([HumanMessage("Hi")], CONFIG)
        history.flush().wait()
    assert stored(url) == [("user", "Hi"), ("assistant", "Hello!")] * 2


def test_system_messages_are_not_read(history: Any, url: str) -> None:
    """A system message that was added is stored, and is no part of the memory."""
    memory = langchain.ChatMessageHistory("c1", history)
    memory.add_messages([SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello!")])
    assert shown(memory.messages) == [("human", "Hi"), ("ai", "Hello!")]
    assert [role for role, _ in stored(url)] == ["system", "user", "assistant"]


def test_a_memory_on_both_databases(database: str, provider: LoopbackProvider) -> None:
    """The same chat on SQLite and on Postgres."""
    with (
        langchain.ChatHistoryCallback(database) as history,
        model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat,
    ):
        chain = with_memory(chat, history)
        for question in ("First?", "Second?"):
            chain.invoke([HumanMessage(question)], CONFIG)
        memory = langchain.ChatMessageHistory("c1", history)
        assert [message.content for message in memory.messages] == ["First?", "One.", "Second?", "Two."]
        memory.clear()
        assert memory.messages == []


def test_an_unknown_conversation_is_empty(history: Any) -> None:
    """A memory that nothing was added to has no messages."""
    assert langchain.ChatMessageHistory("new", history).messages == []


def test_the_memory_follows_the_newest_branch(history: Any, provider: LoopbackProvider) -> None:
    """An edited question begins a branch, and the memory goes on there."""
    with model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat:
        config: Any = {"metadata": {"session_id": "c1"}}
        chat.invoke([HumanMessage("First?")], config=config)
        chat.invoke([HumanMessage("First?"), AIMessage("One."), HumanMessage("Second?")], config=config)
        chat.invoke([HumanMessage("First?"), AIMessage("One."), HumanMessage("Other?")], config=config)
    memory = langchain.ChatMessageHistory("c1", history)
    assert [message.content for message in memory.messages] == ["First?", "One.", "Other?", "One."]


def test_the_memory_of_another_user_is_not_read(history: Any) -> None:
    """Who names another user's conversation reads and continues a conversation of his own."""
    langchain.ChatMessageHistory("c1", history, user="ada").add_user_message("Ada's secret")
    bob = langchain.ChatMessageHistory("c1", history, user="bob")
    assert bob.messages == []
    bob.add_user_message("Hi")
    assert shown(bob.messages) == [("human", "Hi")]
    with history.user("ada"):
        assert shown(langchain.ChatMessageHistory("c1", history).messages) == [("human", "Ada's secret")]


# -- clear ---------------------------------------------------------------------------------------------------------


def test_after_clear_the_memory_begins_anew(url: str, history: Any, provider: LoopbackProvider) -> None:
    """The next call is sent without the past; everything that was recorded is still stored."""
    with model_of("ChatOpenAI", provider.url, callbacks=[history]) as chat:
        chain = with_memory(chat, history)
        chain.invoke([HumanMessage("First?")], CONFIG)
        memory = langchain.ChatMessageHistory("c1", history)
        memory.clear()
        memory.clear()
        assert memory.messages == []
        chain.invoke([HumanMessage("Second?")], CONFIG)
        chain.invoke([HumanMessage("Third?")], CONFIG)
    assert [each["content"] for each in provider.requests[1]["body"]["messages"]] == ["Second?"]
    assert [each["content"] for each in provider.requests[2]["body"]["messages"]] == [
        "Second?",
        "Two.",
        "Third?",
    ]
    assert shown(memory.messages) == [
        ("human", "Second?"), ("ai", "Two."), ("human", "Third?"), ("ai", "One."),
    ]  # fmt: skip
    assert [role for role, _ in stored(url)] == ["user", "assistant", "system", *["user", "assistant"] * 2]
    with Replay(url) as replay:
        assert replay.messages("c1")[2].content == "The memory was cleared. It begins anew from here."


def test_clear_on_an_event_loop(history: Any) -> None:
    """The asynchronous methods do the same."""

    async def use() -> list[int]:
        memory = langchain.ChatMessageHistory("c1", history)
        counts = []
        await memory.aadd_messages([HumanMessage("Hi"), AIMessage("Hello!")])
        counts.append(len(await memory.aget_messages()))
        await memory.aclear()
        counts.append(len(await memory.aget_messages()))
        return counts

    assert asyncio.run(use()) == [2, 0]


# -- errors --------------------------------------------------------------------------------------------------------


def test_a_database_that_does_not_commit_is_an_error(
    tmp_path: Path, url: str, history: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the file's lock: reading ends in time, and says what to do. Afterwards all is there."""
    monkeypatch.setattr("recorder.memory.branch_reader.FLUSH_TIMEOUT", 0.05)
    memory = langchain.ChatMessageHistory("c1", history)
    history.flush().wait()
    with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.add_messages("Hi", conversation_id="c1")
        with pytest.raises(StoreError, match=r"'c1' cannot be read: .* try again when the database answers"):
            _ = memory.messages
        with pytest.raises(StoreError, match="cannot be read"):
            asyncio.run(memory.aadd_messages([HumanMessage("Hello?")]))
        other.execute("ROLLBACK")
    history.flush().wait()
    assert shown(memory.messages) == [("human", "Hi")]


def test_an_error_that_langchain_ignores_is_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The chain's answer arrives although the recorder is closed; the log names the conversation and the reason."""
    history = langchain.ChatHistoryCallback(url)
    chain = with_memory(RunnableLambda(lambda _: AIMessage("Hello!")), history)
    history.close().wait()
    with caplog.at_level(logging.ERROR, "recorder"):
        assert chain.invoke([HumanMessage("Hi")], CONFIG).content == "Hello!"
    (record,) = [record for record in caplog.records if record.name == "recorder"]
    assert "Messages are not added to conversation 'c1': This recorder is closed" in record.getMessage()
    with pytest.raises(Closed):
        langchain.ChatMessageHistory("c1", history).add_user_message("Hi")


def test_anything_else_than_a_recorder_is_refused() -> None:
    """The error says what to pass."""
    with pytest.raises(ConfigError, match="pass the ChatHistoryCallback that records the conversation"):
        langchain.ChatMessageHistory("c1", "sqlite:///chat.db")
