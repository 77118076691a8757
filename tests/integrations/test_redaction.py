"""A recorder that redacts stores no secret of LangChain's models, chains, tools and memories, nor of OpenAI Agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

import recorder
from recorder.integrations.agents import Session
from recorder.testing import LoopbackProvider
from tests.oracle import sql
from tests.redaction import test_redacted_recordings as recordings
from tests.redaction.leaks import leaks, secret

langchain: Any = pytest.importorskip("recorder.integrations.langchain")
langchain_openai: Any = pytest.importorskip("langchain_openai")
fakes: Any = pytest.importorskip("langchain_core.language_models.fake_chat_models")
histories: Any = pytest.importorskip("langchain_core.runnables.history")
runnables: Any = pytest.importorskip("langchain_core.runnables")
tools: Any = pytest.importorskip("langchain_core.tools")


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider whose answers have secrets."""
    with LoopbackProvider(lambda body, path: recordings.answer(body, path.partition("?")[0])) as provider:
        yield provider


@pytest.fixture
def history(database: str) -> Iterator[Any]:
    """Yield LangChain's recorder, which redacts."""
    with langchain.ChatHistoryCallback(database, redact=recordings.REDACT) as history:
        yield history


def answers_of(database: str, history: Any) -> set[str]:
    """Return the stored answers after the recorder has ended; no secret is left."""
    stats = history.close().wait()
    assert (leaks(database), stats.dropped, stats.withheld) == ([], 0, 0)
    assert sql(database, "SELECT count(*) FROM runs WHERE redaction IS NULL OR status = 'streaming'") == [
        (0,)
    ]
    return {text for (text,) in sql(database, "SELECT content FROM messages WHERE role = 'assistant'")}


def test_a_linked_model(provider: LoopbackProvider, history: Any, database: str) -> None:
    """A model over HTTP is recorded from its bytes, which are translated where it runs."""
    options: Any = {"model": "m", "base_url": f"{provider.url}/v1", "api_key": "k", "callbacks": [history]}
    model = langchain_openai.ChatOpenAI(**options)
    question = [("system", f"Of {secret('system')}"), ("user", f"I am {secret('question')}")]
    config: Any = {"metadata": {"about": secret("metadata")}, "tags": [secret("tag")]}
    model.invoke(question, config)
    list(model.stream(question, config))

    async def story() -> None:
        async with httpx2.AsyncClient() as client:
            model = langchain_openai.ChatOpenAI(**options, http_async_client=client)
            async for _ in model.astream(question, config):
                pass
            await model.ainvoke(question, config)

    asyncio.run(story())
    assert answers_of(database, history) == {"Write to [email], please."}
    assert sql(database, "SELECT count(*), count(wire), count(input_hash) FROM runs") == [(4, 4, 4)]
    query = "SELECT count(DISTINCT run_id) FROM segments WHERE CAST(deltas AS text) LIKE '%[email]%'"
    assert sql(database, query) == [(4,)]


def test_a_model_without_http_in_a_chain_with_a_tool(history: Any, database: str) -> None:
    """What chains and tools get and return is redacted, and so is the error of a step."""

    @tools.tool  # type: ignore[untyped-decorator]
    def find(mail: str) -> str:
        """Find somebody."""
        return f"found {secret('tool')} for {mail}"

    def fail(_value: Any) -> Any:
        raise ValueError(secret("error"))

    model = fakes.GenericFakeChatModel(messages=iter([recordings.ANSWER]))
    config = {"callbacks": [history]}
    (runnables.RunnableLambda(str.upper) | model).invoke(f"i am {secret('chain')}", config)
    find.invoke({"mail": secret("argument")}, config)
    with pytest.raises(ValueError, match="leak"):
        runnables.RunnableLambda(fail).invoke(secret("input"), config)
    assert answers_of(database, history) == {"Write to [email], please."}


def test_a_memory(history: Any, database: str) -> None:
    """What a memory of LangChain adds is redacted, and it reads the redacted messages."""
    memory = langchain.ChatMessageHistory("c1", history)
    memory.add_user_message(f"I am {secret('memory')}")
    memory.add_ai_message(f"Hello {secret('reply')}")
    assert [message.content for message in memory.messages] == ["I am [email]", "Hello [email]"]
    assert answers_of(database, history) == {"Hello [email]"}


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory")
def test_a_memory_beside_the_handler(provider: LoopbackProvider, history: Any, database: str) -> None:
    """Both see each message, with the original texts, and it is stored once."""
    model = langchain_openai.ChatOpenAI(model="m", base_url=f"{provider.url}/v1", api_key="k")
    chain = histories.RunnableWithMessageHistory(
        model, lambda session_id: langchain.ChatMessageHistory(session_id, history)
    )
    config: Any = {"callbacks": [history], "configurable": {"session_id": "c1"}}
    questions = [f"I am {secret('one')}", f"It is {secret('two')}", "And now?"]
    for question in questions:
        chain.invoke([("user", question)], config)
    assert answers_of(database, history) == {"Write to [email], please."}
    contents = [text for (text,) in sql(database, "SELECT content FROM messages ORDER BY position")]
    reply = "Write to [email], please."
    assert contents == ["I am [email]", reply, "It is [email]", reply, "And now?", reply]


def test_a_session_of_agents(database: str) -> None:
    """Its items are redacted: texts, arguments and results of calls."""
    items: list[Any] = [
        {"role": "user", "content": f"I am {secret('item')}"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": recordings.ARGUMENTS},
        {"type": "function_call_output", "call_id": "c1", "output": secret("output")},
    ]

    async def story() -> list[Any]:
        async with recorder.ChatHistoryCallback(database, redact=recordings.REDACT) as history:
            session = Session("c1", history)
            await session.add_items(items)
            found: list[Any] = await session.get_items()
            return found

    found = asyncio.run(story())
    assert found[0]["content"] == "I am [email]"
    assert found[2]["output"] == "[email]"
    assert leaks(database) == []
