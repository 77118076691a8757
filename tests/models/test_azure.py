"""`AzureChatOpenAI` over the SDK's own clients for it, on a provider that answers as Azure does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from recorder.errors import ConfigError
from recorder.models import AzureChatOpenAI
from recorder.testing import Answer, LoopbackProvider, azure_chat_frames, openai_chat_frames, song
from recorder.testing.azure import SAFE
from tests.chatting import PLAIN, ROADS, Log, Road, history_at, name_of, recorded

both = pytest.mark.parametrize("road", ROADS, ids=name_of)
VERSION = "2024-10-21"
VARIABLES = (
    "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_KEY", "OPENAI_API_VERSION"
)  # fmt: skip


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def azure(provider: LoopbackProvider, **options: Any) -> AzureChatOpenAI:
    """A model of the provider that tries each request once."""
    settings = {"azure_deployment": "my-gpt", "azure_endpoint": provider.url, "api_version": VERSION}
    return AzureChatOpenAI(**{**settings, "api_key": "any", "max_retries": 0, **options})


# -- answers ---------------------------------------------------------------------------------------------------


@both
def test_a_stream_with_what_azure_adds_to_it(road: Road) -> None:
    """An event without choices first, and filters in each choice: the application sees an ordinary stream."""
    with LoopbackProvider("Hello there!") as provider:
        chunks = road.stream(azure(provider), "Hi")
    answer = chunks[0] + chunks[1:]
    assert [chunk.content for chunk in chunks if chunk.content] == ["Hello", " there", "!"]
    assert answer.additional_kwargs == {}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3
    metadata = answer.response_metadata
    assert (metadata["finish_reason"], metadata["model_name"]) == ("stop", "gpt-4o-2024-08-06")
    assert metadata["content_filter_results"] == SAFE
    assert metadata["prompt_filter_results"] == [{"prompt_index": 0, "content_filter_results": SAFE}]
    (request,) = provider.requests
    assert request["path"] == f"/openai/deployments/my-gpt/chat/completions?api-version={VERSION}"
    assert request["headers"]["api-key"] == "any"
    assert request["body"]["stream_options"] == {"include_usage": True}


@both
def test_the_whole_answer_at_once(road: Road) -> None:
    """It has the same content and metadata."""
    with LoopbackProvider() as provider:
        answer = road.invoke(azure(provider), "Write me a song about sparkling water.")
    assert answer.content == song()
    assert answer.additional_kwargs == {}
    assert answer.response_metadata["content_filter_results"] == SAFE
    assert answer.response_metadata["prompt_filter_results"][0]["prompt_index"] == 0


def test_the_result_of_generate_has_the_filters_with_each_generation() -> None:
    """As LangChain's `generation_info`."""
    with LoopbackProvider("Hello") as provider:
        result = azure(provider).generate([["Hi"]])
    info = result.generations[0][0].generation_info
    assert info is not None
    assert info["content_filter_results"] == SAFE
    assert "prompt_filter_results" not in info


@both
def test_a_run_is_recorded(road: Road, tmp_path: Path) -> None:
    """Tokens, Azure's unchanged bytes, and the provider's name."""
    frames = azure_chat_frames(openai_chat_frames(["Hello", "!"], model="gpt-4o"))
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        road.stream(azure(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert list(found.tokens.texts.values()) == ["Hello", "!"]
    assert found.body == b"".join(frames)
    assert found.transcript == [("user", "Hi"), ("assistant", "Hello!")]
    run = found.run
    assert (run["provider_name"], run["request_model"], run["wire"]) == ("azure", "my-gpt", "openai.chat")
    assert (run["response_model"], run["status"]) == ("gpt-4o-2024-08-06", "complete")


def test_an_answer_that_the_filter_ended_is_incomplete(tmp_path: Path) -> None:
    """The text before it is stored. LangChain raises here, but only without a stream."""
    frames = azure_chat_frames(openai_chat_frames(["Hello"], finish_reason="content_filter"))
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        list(azure(provider, callbacks=[history]).stream("Hi"))
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.run["finish_reason"]) == ("incomplete", "content_filter")
    assert found.text == "Hello"


@both
def test_a_prompt_that_the_filter_refuses(road: Road) -> None:
    """The SDK's error with Azure's message."""
    refused = Answer.error(400, "The response was filtered", code="content_filter")
    log = Log()
    with LoopbackProvider(refused) as provider, pytest.raises(openai.BadRequestError) as caught:
        road.stream(azure(provider, callbacks=[log]), "Hi")
    assert caught.value.code == "content_filter"
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


# -- how it is reached -----------------------------------------------------------------------------------------


@both
def test_endpoint_and_key_from_the_environment(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own variables."""
    with LoopbackProvider("Hello") as provider:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", provider.url)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "from the environment")
        monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
        monkeypatch.setenv("OPENAI_API_KEY", "of another house")
        road.invoke(AzureChatOpenAI(azure_deployment="my-gpt"), "Hi")
    assert provider.requests[0]["headers"]["api-key"] == "from the environment"


def test_the_key_of_openai_s_own_variable_is_the_last_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with LangChain's."""
    monkeypatch.setenv("OPENAI_API_KEY", "the last choice")
    with LoopbackProvider("Hello") as provider:
        azure(provider, api_key=None).invoke("Hi")
    assert provider.requests[0]["headers"]["api-key"] == "the last choice"


@both
def test_a_token_in_place_of_a_key(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """`azure_ad_token`; the key of the environment is not sent beside it."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a key")
    with LoopbackProvider("Hello") as provider:
        road.invoke(azure(provider, api_key=None, azure_ad_token="a token"), "Hi")
    headers = provider.requests[0]["headers"]
    assert headers["authorization"] == "Bearer a token"
    assert "api-key" not in headers


@both
def test_a_token_for_each_request(road: Road) -> None:
    """`azure_ad_token_provider` is called for each request."""
    tokens = iter(["one", "two"])
    with LoopbackProvider("Hello") as provider:
        model = azure(provider, api_key=None, azure_ad_token_provider=lambda: next(tokens))
        road.invoke(model, "Hi")
        road.stream(model, "Hi")
    assert [request["headers"]["authorization"] for request in provider.requests] == [
        "Bearer one",
        "Bearer two",
    ]


def test_a_token_from_an_asynchronous_function() -> None:
    """`azure_ad_async_token_provider`, on an event loop; without it synchronous code has no credential."""

    async def token() -> str:
        await asyncio.sleep(0)
        return "waited for"

    with LoopbackProvider("Hello") as provider:
        model = azure(provider, api_key=None, azure_ad_async_token_provider=token)
        assert asyncio.run(model.ainvoke("Hi")).content == "Hello"
        with pytest.raises(openai.OpenAIError, match="Missing credentials"):
            model.invoke("Hi")
        both_ways = azure(
            provider,
            api_key=None,
            azure_ad_async_token_provider=token,
            azure_ad_token_provider=lambda: "at once",
        )
        both_ways.invoke("Hi")
        asyncio.run(both_ways.ainvoke("Hi"))
    found = [request["headers"]["authorization"] for request in provider.requests]
    assert found == ["Bearer waited for", "Bearer at once", "Bearer waited for"]


@both
def test_a_missing_credential_is_a_run_that_failed(road: Road) -> None:
    """The SDK's error is raised, and reported as the error of a run."""
    log = Log()
    with LoopbackProvider() as provider, pytest.raises(openai.OpenAIError, match="Missing credentials"):
        road.stream(azure(provider, api_key=None, callbacks=[log]), "Hi")
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


def test_without_a_deployment_the_model_s_name_is_used() -> None:
    """Without both, the constructor raises."""
    with LoopbackProvider("Hello") as provider:
        azure(provider, azure_deployment=None, model="gpt-4o").invoke("Hi")
    assert provider.requests[0]["path"].startswith("/openai/deployments/gpt-4o/chat/completions")
    with pytest.raises(ConfigError, match="azure_deployment="):
        AzureChatOpenAI(api_key="any")


def test_names_that_langchain_has_for_the_same_thing() -> None:
    """`deployment_name`, `openai_api_version`, `openai_api_key` as a secret, `openai_api_base`, `model_name`."""

    class Secret:
        def get_secret_value(self) -> str:
            return "hidden"

    with LoopbackProvider("Hello") as provider:
        AzureChatOpenAI(
            deployment_name="my-gpt", azure_endpoint=provider.url, openai_api_version=VERSION, openai_api_key=Secret(),
            model_name="gpt-4o", openai_api_type="azure", verbose=True, request_timeout=5, temperature=0,
        ).invoke("Hi")  # fmt: skip
        AzureChatOpenAI(
            openai_api_base=f"{provider.url}/openai/deployments/other",
            api_version=VERSION,
            api_key="any",
            model="m",
        ).invoke("Hi")
    first, second = provider.requests
    assert first["headers"]["api-key"] == "hidden"
    assert (first["body"]["model"], first["body"]["temperature"]) == ("gpt-4o", 0)
    assert second["path"].startswith("/openai/deployments/other/chat/completions")


def test_a_request_without_an_api_version_is_refused() -> None:
    """The test provider refuses it as Azure does."""
    with LoopbackProvider() as provider:
        client = openai.OpenAI(
            base_url=f"{provider.url}/openai/deployments/my-gpt", api_key="any", max_retries=0
        )
        with client, pytest.raises(openai.NotFoundError, match="Resource not found"):
            client.chat.completions.create(model="m", messages=[])


def test_a_model_is_shown_without_its_key() -> None:
    """Neither the model's `repr` nor the arguments of handlers hold a credential."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = azure(provider, api_key="s3cret", callbacks=[log])
        model.invoke("Hi")
    assert "s3cret" not in repr(model) + repr(log.events)


# -- beside langchain-openai -----------------------------------------------------------------------------------

langchain = pytest.importorskip("langchain_openai")
Handler: Any = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler
STREAMS = {
    "text": azure_chat_frames(openai_chat_frames(["Hello", " there", "!"])),
    "calls": azure_chat_frames(
        openai_chat_frames([], tool_calls=[{"id": "c", "name": "f", "arguments": '{"a": 1}'}])
    ),
    "length": azure_chat_frames(openai_chat_frames(["Hello"], finish_reason="length")),
}
#: Only ours has them in a stream; LangChain's has one more chunk, for the event without choices.
FILTERS = ("content_filter_results", "prompt_filter_results")


class LangChainLog(Handler):  # type: ignore[misc]
    """LangChain's own kind of handler, which notes into a log of ours."""

    def __init__(self) -> None:
        self.log = Log()
        for name in ("on_chat_model_start", "on_llm_end"):
            setattr(self, name, getattr(self.log, name))


def by_langchain(road: Road, provider: LoopbackProvider, config: dict[str, Any], **options: Any) -> list[Any]:
    """What LangChain's model streams."""
    settings = {
        "azure_endpoint": provider.url,
        "api_version": VERSION,
        "api_key": "any",
        "max_retries": 0,
        **options,
    }
    if road is PLAIN:
        return list(langchain.AzureChatOpenAI(**settings).stream("Hi", config))

    async def main() -> list[Any]:
        async with openai.DefaultAsyncHttpxClient(verify=False) as http:
            model = langchain.AzureChatOpenAI(**settings, http_async_client=http, stream_usage=True)
            return [chunk async for chunk in model.astream("Hi", config)]

    return asyncio.run(main())


def seen(chunk: Any) -> dict[str, Any]:
    """What an application reads of a chunk."""
    metadata = {key: value for key, value in chunk.response_metadata.items() if key not in FILTERS}
    for name in ("model_provider", "id"):
        metadata.pop(name, None)
    return {
        "content": chunk.content,
        "response_metadata": metadata,
        "tool_call_chunks": [dict(call) for call in chunk.tool_call_chunks],
        "usage_metadata": {key: value for key, value in (chunk.usage_metadata or {}).items() if value != {}},
        "chunk_position": chunk.chunk_position,
    }


@both
@pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)
def test_the_same_chunks(road: Road, frames: list[bytes]) -> None:
    """As an application of langchain-openai's `AzureChatOpenAI` sees them."""
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        expected = by_langchain(road, provider, dict(config), azure_deployment="my-gpt")
        found = road.stream(azure(provider), "Hi", dict(config))
    assert [seen(chunk) for chunk in found] == [seen(chunk) for chunk in expected[1:]]
    assert seen(expected[0])["content"] == ""


@pytest.mark.parametrize(
    "options",
    [
        {"azure_deployment": "my-gpt"},
        {"azure_deployment": "my-gpt", "model": "gpt-4o"},
        {"azure_deployment": "my-gpt", "model": "gpt-4o", "model_version": "2024-08-06", "temperature": 0.5},
        {"azure_deployment": "my-gpt", "model": "gpt-4o-0125", "model_version": "0125"},
        {"model": "gpt-4o"},
    ],
    ids=["deployment", "model", "version", "version in the name", "model alone"],
)
def test_metadata_name_the_model_alike(options: dict[str, Any]) -> None:
    """`ls_provider` and friends."""
    their, our = LangChainLog(), LangChainLog()
    with LoopbackProvider("Hello") as provider:
        by_langchain(PLAIN, provider, {"callbacks": [their]}, **options)
        list(azure(provider, **{"azure_deployment": None, **options}).stream("Hi", {"callbacks": [our]}))
    expected, found = (log.calls_of("on_chat_model_start")[0][1]["metadata"] for log in (their.log, our.log))
    assert found == {key: expected[key] for key in expected if key not in ("ls_integration", "lc_versions")}
    first, second = provider.requests
    assert first["path"] == second["path"]
