"""`ReplayChatModel` answers LangChain's requests from a recording, and records what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recorder import models
from recorder.errors import ConfigError
from recorder.replay import Replay
from recorder.replay.http.not_recorded import NotRecorded
from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_messages_body,
    anthropic_messages_frames,
    openai_chat_body,
    openai_chat_frames,
    openai_responses_body,
    openai_responses_frames,
    scripted,
)
from tests.integrations.langchain.ways import MODELS, async_model_of, error_of, model_of
from tests.oracle import new_url, sql

langchain: Any = pytest.importorskip("recorder.integrations.langchain")
from langchain_core.language_models import FakeListChatModel  # noqa: E402
from langchain_core.messages import AIMessageChunk, HumanMessage  # noqa: E402

#: A port on which nothing listens.
NOWHERE = "http://127.0.0.1:9"
CALL = {"id": "call_1", "name": "add", "arguments": '{"a": 1}'}
EACH_MODEL = pytest.mark.parametrize("model", MODELS)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


def add(a: int) -> int:
    """Add one."""
    return a + 1


def provider_of(model: str) -> LoopbackProvider:
    """Return a provider that answers with a text and a call of a tool, streamed if the request says so."""
    fields: dict[str, Any] = {"pieces": ["Hello", " there"], "tool_calls": [CALL]}
    if model == "ChatAnthropic":
        fields["tool_calls"] = [{"id": "call_1", "name": "add", "input": {"a": 1}}]
        frames, body = anthropic_messages_frames(**fields), anthropic_messages_body(**fields)
    elif "Responses" in model:
        frames, body = openai_responses_frames(**fields), openai_responses_body(**fields)
    else:
        frames, body = openai_chat_frames(**fields), openai_chat_body(**fields)
    return LoopbackProvider(
        lambda request, path: Answer(frames=frames) if request.get("stream") else Answer(body=body)
    )


@pytest.fixture
def recorded(url: str) -> Iterator[Any]:
    """Yield a function that records calls of a model, and returns a model that replays them."""
    opened: list[Any] = []

    def record(model: str, use: Any) -> tuple[Any, Any]:
        with (
            provider_of(model) as provider,
            model_of(model, provider.url) as like,
            langchain.ReplayChatModel(url, like=like, mode="once") as recording,
        ):
            before = use(recording)
        context = model_of(model, NOWHERE)
        opened.append(context)
        replaying = langchain.ReplayChatModel(url, like=context.__enter__())
        opened.append(replaying)
        return before, replaying

    yield record
    for context in reversed(opened):
        context.__exit__(None, None, None)


def plain(message: Any) -> dict[str, Any]:
    """Return the fields of a message without the id of its run."""
    fields: dict[str, Any] = message.model_dump()
    return {
        name: value for name, value in fields.items() if name != "id" or not str(value).startswith("lc_run")
    }


# -- the same answer -----------------------------------------------------------------------------------------------


@EACH_MODEL
def test_invoke_returns_the_recorded_message(model: str, recorded: Any) -> None:
    """Text, calls, usage and metadata are those of the recording, field by field."""

    def invoke(chat: Any) -> Any:
        return chat.bind_tools([add]).invoke("Hi")

    before, chat = recorded(model, invoke)
    assert plain(invoke(chat)) == plain(before)
    assert [call["name"] for call in before.tool_calls] == ["add"]


@EACH_MODEL
def test_stream_yields_the_recorded_chunks(model: str, recorded: Any) -> None:
    """There are as many chunks, and each is equal."""

    def stream(chat: Any) -> list[Any]:
        return [*chat.bind_tools([add]).stream("Hi")]

    before, chat = recorded(model, stream)
    after = stream(chat)
    assert [plain(chunk) for chunk in after] == [plain(chunk) for chunk in before]
    assert len(after) > 3


@EACH_MODEL
def test_the_same_on_an_event_loop(model: str, url: str) -> None:
    """`ainvoke` and `astream` record and replay."""

    async def use(chat: Any) -> list[Any]:
        bound = chat.bind_tools([add])
        whole = await bound.ainvoke("Hi")
        chunks = [chunk async for chunk in bound.astream("Hi")]
        return [plain(whole), *map(plain, chunks)]

    async def both() -> tuple[list[Any], list[Any]]:
        with provider_of(model) as provider:
            async with (
                async_model_of(model, provider.url) as like,
                langchain.ReplayChatModel(url, like=like, mode="new_episodes") as chat,
            ):
                before = await use(chat)
        async with async_model_of(model, NOWHERE) as like, langchain.ReplayChatModel(url, like=like) as chat:
            return before, await use(chat)

    before, after = asyncio.run(both())
    assert after == before


def test_without_a_model_the_messages_decide(url: str, recorded: Any) -> None:
    """The answer has the text, the calls, the usage and the name of the model."""
    before, _ = recorded("ChatOpenAI", lambda chat: chat.bind_tools([add]).invoke("Hi"))
    with langchain.ReplayChatModel(url) as chat:
        after = chat.bind_tools([add]).invoke([HumanMessage("Hi")])
    assert (after.content, after.tool_calls, after.usage_metadata) == (
        before.content, before.tool_calls, before.usage_metadata,
    )  # fmt: skip
    assert after.response_metadata["model_name"] == before.response_metadata["model_name"]


def test_a_model_of_the_application_is_recorded_and_replayed(url: str) -> None:
    """A model without HTTP is recorded from LangChain's callbacks."""
    with langchain.ReplayChatModel(url, like=FakeListChatModel(responses=["Hello!"]), mode="once") as chat:
        assert chat.invoke("Hi").content == "Hello!"
    with langchain.ReplayChatModel(url, like=FakeListChatModel(responses=["Other"])) as chat:
        assert sum(chat.stream("Hi"), AIMessageChunk(content="")).content == "Hello!"


def test_the_handlers_of_the_application_get_the_tokens(recorded: Any) -> None:
    """A replay in a chain reports its tokens, as the model does."""
    from langchain_core.callbacks import BaseCallbackHandler

    class Tokens(BaseCallbackHandler):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            self.seen.append(token)

    _, chat = recorded("ChatOpenAI", lambda chat: [*chat.stream("Hi")])
    tokens = Tokens()
    chunks = [*chat.stream("Hi", config={"callbacks": [tokens]})]
    assert "".join(tokens.seen) == "".join(chunk.content for chunk in chunks) == "Hello there"


# -- modes ---------------------------------------------------------------------------------------------------------


def test_a_request_that_was_not_recorded_is_an_error(recorded: Any) -> None:
    """The error shows the difference; another option is another request."""
    _, chat = recorded("ChatOpenAI", lambda chat: chat.invoke("Hi"))
    with pytest.raises(NotRecorded, match=r"\+.*Bye"):
        chat.invoke("Bye")
    with pytest.raises(NotRecorded, match="temperature"):
        chat.invoke("Hi", temperature=1)


def test_fields_that_may_differ(url: str, recorded: Any) -> None:
    """`match_on` and `ignore` loosen what must be the same; repeats are allowed on demand."""
    recorded("ChatOpenAI", lambda chat: chat.invoke("Hi"))
    for rules in ({"match_on": ("messages",)}, {"ignore": ("temperature",)}):
        with (
            model_of("ChatOpenAI", NOWHERE, temperature=1) as like,
            langchain.ReplayChatModel(url, like=like, allow_playback_repeats=True, **rules) as chat,
        ):
            assert [chat.invoke("Hi").content for _ in range(2)] == ["Hello there"] * 2


def test_new_episodes_records_what_is_missing(url: str, recorded: Any) -> None:
    """The recorded request is replayed, the other one is asked for and recorded."""
    recorded("ChatOpenAI", lambda chat: chat.invoke("Hi"))
    with (
        provider_of("ChatOpenAI") as provider,
        model_of("ChatOpenAI", provider.url) as like,
        langchain.ReplayChatModel(url, like=like, mode="new_episodes") as chat,
    ):
        chat.invoke("Hi")
        chat.invoke("Bye")
        assert [request["body"]["messages"][0]["content"] for request in provider.requests] == ["Bye"]
    assert sql(url, "SELECT count(*) FROM runs") == [(2,)]


def test_a_recorded_error_is_raised_again(url: str) -> None:
    """The class and the status are those of the SDK."""
    import openai

    with (
        LoopbackProvider(scripted(error_of("ChatOpenAI", 400))) as provider,
        model_of("ChatOpenAI", provider.url) as like,
        langchain.ReplayChatModel(url, like=like, mode="once") as chat,
        pytest.raises(openai.BadRequestError),
    ):
        chat.invoke("Hi")
    with (
        model_of("ChatOpenAI", NOWHERE) as like,
        langchain.ReplayChatModel(url, like=like) as chat,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        chat.invoke("Hi")
    assert caught.value.status_code == 400


def test_settings_are_fields_of_the_model(url: str) -> None:
    """They reach the request; an unknown one is refused."""
    with provider_of("ChatOpenAI") as provider, model_of("ChatOpenAI", provider.url) as like:
        with langchain.ReplayChatModel(url, like=like, mode="once", max_tokens=7, temperature=0.5) as chat:
            chat.invoke("Hi")
        body = provider.requests[0]["body"]
    assert (body["max_completion_tokens"], body["temperature"]) == (7, 0.5)
    with pytest.raises(ConfigError, match="'colour' is no option"):
        langchain.ReplayChatModel(url, like=like, colour="red")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sometimes"}, "mode is 'sometimes'"),
        ({"mode": "once"}, "pass it as like="),
        ({"like": "gpt"}, "pass a chat model of LangChain"),
        ({"match_on": ("messages",), "ignore": ("seed",)}, "pass one of them"),
        ({"speed": 0}, "speed"),
    ],
)
def test_invalid_arguments_are_refused(url: str, options: dict[str, Any], message: str) -> None:
    """The error says what to do."""
    with pytest.raises(ConfigError, match=message):
        langchain.ReplayChatModel(url, **options)


@pytest.mark.parametrize("name", ["ChatOpenAI", "ChatAnthropic"])
def test_a_model_of_recorder_replays_what_langchain_recorded(name: str, url: str) -> None:
    """`ignore` compares the options of the request, without LangChain's description of its model."""
    with LoopbackProvider("Hello!") as provider, langchain.ChatHistoryCallback(url) as history:
        with model_of(name, provider.url, callbacks=[history], temperature=0.5) as model:
            model.invoke("Hi")
        sent = provider.requests[0]["body"]
    options = {key: sent[key] for key in ("model", "max_tokens") if key in sent}
    like = getattr(models, name)(**options, api_key="any", temperature=0.9)
    with Replay(url) as replay:
        assert replay.model(like=like, ignore=("temperature",)).invoke("Hi").content == "Hello!"
