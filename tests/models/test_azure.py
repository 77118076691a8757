"""`AzureChatOpenAI` over the SDK's Azure clients, with a provider that answers as Azure does."""

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
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, Log, history_at, name_of, recorded

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
VERSION = "2024-10-21"
VARIABLES = (
    "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_KEY", "OPENAI_API_VERSION"
)  # fmt: skip


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def azure(provider: LoopbackProvider, **options: Any) -> AzureChatOpenAI:
    """Return a model of this provider that sends each request once, without retries."""
    settings = {"azure_deployment": "my-gpt", "azure_endpoint": provider.url, "api_version": VERSION}
    return AzureChatOpenAI(**{**settings, "api_key": "any", "max_retries": 0, **options})


# -- answers ---------------------------------------------------------------------------------------------------


@both
def test_a_stream_has_azures_content_filters_in_its_metadata(style: CallStyle) -> None:
    """The first event has no choices and makes no chunk; the filters are in `response_metadata`."""
    with LoopbackProvider("Hello there!") as provider:
        chunks = style.stream(azure(provider), "Hi")
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
def test_invoke_has_azures_content_filters_in_its_metadata(style: CallStyle) -> None:
    """The message has the same content and metadata as the sum of the chunks."""
    with LoopbackProvider() as provider:
        answer = style.invoke(azure(provider), "Write me a song about sparkling water.")
    assert answer.content == song()
    assert answer.additional_kwargs == {}
    assert answer.response_metadata["content_filter_results"] == SAFE
    assert answer.response_metadata["prompt_filter_results"][0]["prompt_index"] == 0


def test_the_result_of_generate_has_the_filters_with_each_generation() -> None:
    """`generation_info` has the content filters, as in LangChain."""
    with LoopbackProvider("Hello") as provider:
        result = azure(provider).generate([["Hi"]])
    info = result.generations[0][0].generation_info
    assert info is not None
    assert info["content_filter_results"] == SAFE
    assert "prompt_filter_results" not in info


@both
def test_a_run_is_recorded(style: CallStyle, tmp_path: Path) -> None:
    """Tokens, Azure's unchanged bytes and the provider's name are stored."""
    frames = azure_chat_frames(openai_chat_frames(["Hello", "!"], model="gpt-4o"))
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        style.stream(azure(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert list(found.tokens.texts.values()) == ["Hello", "!"]
    assert found.body == b"".join(frames)
    assert found.transcript == [("user", "Hi"), ("assistant", "Hello!")]
    run = found.run
    assert (run["provider_name"], run["request_model"], run["wire"]) == ("azure", "my-gpt", "openai.chat")
    assert (run["response_model"], run["status"]) == ("gpt-4o-2024-08-06", "complete")


def test_an_answer_that_the_filter_ended_is_incomplete(tmp_path: Path) -> None:
    """The text before the filter is stored. LangChain raises an error here, but only without a stream."""
    frames = azure_chat_frames(openai_chat_frames(["Hello"], finish_reason="content_filter"))
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        list(azure(provider, callbacks=[history]).stream("Hi"))
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.run["finish_reason"]) == ("incomplete", "content_filter")
    assert found.text == "Hello"


@both
def test_a_refused_prompt_raises_the_sdks_error(style: CallStyle) -> None:
    """The error has Azure's code `content_filter`."""
    refused = Answer.error(400, "The response was filtered", code="content_filter")
    log = Log()
    with LoopbackProvider(refused) as provider, pytest.raises(openai.BadRequestError) as caught:
        style.stream(azure(provider, callbacks=[log]), "Hi")
    assert caught.value.code == "content_filter"
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


# -- endpoint and credentials ----------------------------------------------------------------------------------


@both
def test_endpoint_and_key_come_from_the_environment(
    style: CallStyle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model reads the SDK's own environment variables."""
    with LoopbackProvider("Hello") as provider:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", provider.url)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "from the environment")
        monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
        monkeypatch.setenv("OPENAI_API_KEY", "of another house")
        style.invoke(AzureChatOpenAI(azure_deployment="my-gpt"), "Hi")
    assert provider.requests[0]["headers"]["api-key"] == "from the environment"


def test_openai_api_key_is_used_when_azures_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """LangChain's model does the same."""
    monkeypatch.setenv("OPENAI_API_KEY", "the last choice")
    with LoopbackProvider("Hello") as provider:
        azure(provider, api_key=None).invoke("Hi")
    assert provider.requests[0]["headers"]["api-key"] == "the last choice"


@both
def test_an_azure_ad_token_replaces_the_key(style: CallStyle, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `azure_ad_token` the key of the environment is not sent."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a key")
    with LoopbackProvider("Hello") as provider:
        style.invoke(azure(provider, api_key=None, azure_ad_token="a token"), "Hi")
    headers = provider.requests[0]["headers"]
    assert headers["authorization"] == "Bearer a token"
    assert "api-key" not in headers


@both
def test_the_token_provider_is_called_for_each_request(style: CallStyle) -> None:
    """Each request has the token that `azure_ad_token_provider` returned for it."""
    tokens = iter(["one", "two"])
    with LoopbackProvider("Hello") as provider:
        model = azure(provider, api_key=None, azure_ad_token_provider=lambda: next(tokens))
        style.invoke(model, "Hi")
        style.stream(model, "Hi")
    assert [request["headers"]["authorization"] for request in provider.requests] == [
        "Bearer one",
        "Bearer two",
    ]


def test_the_asynchronous_token_provider_is_used_on_a_loop() -> None:
    """Without a synchronous one, a synchronous call has no credentials."""

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
def test_missing_credentials_are_an_error_of_the_run(style: CallStyle) -> None:
    """The SDK's error is raised and passed to `on_llm_error`."""
    log = Log()
    with LoopbackProvider() as provider, pytest.raises(openai.OpenAIError, match="Missing credentials"):
        style.stream(azure(provider, api_key=None, callbacks=[log]), "Hi")
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


def test_without_a_deployment_the_model_s_name_is_used() -> None:
    """Without a deployment and a model the constructor raises an error."""
    with LoopbackProvider("Hello") as provider:
        azure(provider, azure_deployment=None, model="gpt-4o").invoke("Hi")
    assert provider.requests[0]["path"].startswith("/openai/deployments/gpt-4o/chat/completions")
    with pytest.raises(ConfigError, match="azure_deployment="):
        AzureChatOpenAI(api_key="any")


def test_langchains_argument_names_are_accepted_for_azure() -> None:
    """Among them are `deployment_name`, `openai_api_version`, `openai_api_key` (a secret) and `openai_api_base`."""

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
    """The loopback provider refuses the request as Azure does."""
    with LoopbackProvider() as provider:
        client = openai.OpenAI(
            base_url=f"{provider.url}/openai/deployments/my-gpt", api_key="any", max_retries=0
        )
        with client, pytest.raises(openai.NotFoundError, match="Resource not found"):
            client.chat.completions.create(model="m", messages=[])


def test_the_key_of_an_azure_model_is_not_shown() -> None:
    """Neither the model's `repr` nor the arguments of handlers contain a credential."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = azure(provider, api_key="s3cret", callbacks=[log])
        model.invoke("Hi")
    assert "s3cret" not in repr(model) + repr(log.events)


# -- compared with langchain-openai ----------------------------------------------------------------------------

langchain = pytest.importorskip("langchain_openai")
Handler: Any = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler
STREAMS = {
    "text": azure_chat_frames(openai_chat_frames(["Hello", " there", "!"])),
    "calls": azure_chat_frames(
        openai_chat_frames([], tool_calls=[{"id": "c", "name": "f", "arguments": '{"a": 1}'}])
    ),
    "length": azure_chat_frames(openai_chat_frames(["Hello"], finish_reason="length")),
}
#: Metadata that only our chunks have; LangChain has one more chunk, for the event without choices.
FILTERS = ("content_filter_results", "prompt_filter_results")


class LangChainLog(Handler):  # type: ignore[misc]
    """A handler of LangChain's class that writes into one of our logs."""

    def __init__(self) -> None:
        self.log = Log()
        for name in ("on_chat_model_start", "on_llm_end"):
            setattr(self, name, getattr(self.log, name))


def by_langchain(
    style: CallStyle, provider: LoopbackProvider, config: dict[str, Any], **options: Any
) -> list[Any]:
    """Return the chunks that LangChain's model streams."""
    settings = {
        "azure_endpoint": provider.url,
        "api_version": VERSION,
        "api_key": "any",
        "max_retries": 0,
        **options,
    }
    if style is PLAIN:
        return list(langchain.AzureChatOpenAI(**settings).stream("Hi", config))

    async def main() -> list[Any]:
        async with openai.DefaultAsyncHttpxClient(verify=False) as http:
            model = langchain.AzureChatOpenAI(**settings, http_async_client=http, stream_usage=True)
            return [chunk async for chunk in model.astream("Hi", config)]

    return asyncio.run(main())


def seen(chunk: Any) -> dict[str, Any]:
    """Return the fields of a chunk that both libraries must have in common."""
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
def test_azure_chunks_equal_langchains(style: CallStyle, frames: list[bytes]) -> None:
    """The chunks equal those of langchain-openai's `AzureChatOpenAI`."""
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        expected = by_langchain(style, provider, dict(config), azure_deployment="my-gpt")
        found = style.stream(azure(provider), "Hi", dict(config))
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
def test_azure_metadata_equal_langchains(options: dict[str, Any]) -> None:
    """`ls_provider` and the other metadata have the same values."""
    their, our = LangChainLog(), LangChainLog()
    with LoopbackProvider("Hello") as provider:
        by_langchain(PLAIN, provider, {"callbacks": [their]}, **options)
        list(azure(provider, **{"azure_deployment": None, **options}).stream("Hi", {"callbacks": [our]}))
    expected, found = (log.calls_of("on_chat_model_start")[0][1]["metadata"] for log in (their.log, our.log))
    assert found == {key: expected[key] for key in expected if key not in ("ls_integration", "lc_versions")}
    first, second = provider.requests
    assert first["path"] == second["path"]
