"""Keys are put in every place where a user may put one, providers repeat them, and none is stored."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.export import export
from recorder.messages import HumanMessage
from recorder.models import AzureChatOpenAI, ChatAnthropic, ChatOpenAI, OpenAI, SimpleChatModel
from recorder.redaction.masking import NOTE
from recorder.replay import Replay
from recorder.storage import schema
from recorder.testing import Answer, LoopbackProvider
from tests.oracle import sql

#: A key with characters that JSON and URLs write in several ways.
CANARY = "Canary/{}+7=end"


class Canaries:
    """Makes a different key for each place, so that a key that is found names its place."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def __call__(self, place: str) -> str:
        self.planted.append(CANARY.format(place))
        return self.planted[-1]

    def found_in(self, text: str) -> list[str]:
        """The places whose keys are in a text, in any spelling of JSON or URLs."""
        places = [key.split("/")[1].split("+")[0] for key in self.planted]
        return [place for place in places if f"{place}+7" in text or f"{place}%2B7" in text]


@pytest.fixture
def canary() -> Canaries:
    return Canaries()


def repeating(kind: str) -> LoopbackProvider:
    """A provider that repeats headers, path and body of its request: in a refusal, in an error in the stream, or beside
    a good answer."""
    providers: list[LoopbackProvider] = []

    def script(body: dict[str, Any], path: str) -> Answer:
        request = providers[0].requests[-1]
        everything = json.dumps([request["headers"], request["path"], body])
        error = {"error": {"type": "authentication_error", "message": f"no such key: {everything}"}}
        if kind == "refusal":
            return Answer(status=401, body=json.dumps(error).encode())
        name = b"event: error\n" if path.endswith("/messages") else b""
        failure = name + b"data: " + json.dumps({"type": "error", **error}).encode() + b"\n\n"
        frames = [
            b": " + everything.encode() + b"\n\n",
            *([failure] if kind == "error in the stream" else []),
        ]
        return Answer(frames=frames, headers={"content-type": "text/event-stream"})

    providers.append(LoopbackProvider(script))
    return providers[0]


def openai_chat(url: str, canary: Canaries, **options: Any) -> Any:
    return ChatOpenAI(
        "gpt-4o-mini",
        base_url=f"{url}/v1",
        openai_api_key=SecretStr(canary("key")),
        organization="org",
        default_headers={"X-Api-Key": canary("header"), "X-Trace": "trace"},
        default_query={"api-key": canary("query"), "key": canary("google"), "page": "1"},
        metadata={"model_token": canary("model-metadata"), "about": canary("key")},
        tags=["b", canary("key")],
        model_kwargs={
            "extra_body": {"api_key": canary("body"), "nested": [{"client_secret": canary("nested")}]}
        },
        **options,
    ).bind(
        extra_headers={"Authorization-Token": canary("per-call-header")},
        extra_query={"access_token": canary("per-call-query")},
        tools=[
            {
                "type": "mcp",
                "server_url": f"https://mcp.invalid/?token={canary('mcp-url')}",
                "headers": {"Authorization": f"Bearer {canary('mcp-header')}"},
            }
        ],
        user=canary("key"),
    )


def completions(url: str, canary: Canaries, **options: Any) -> Any:
    return OpenAI(
        "gpt-3.5-turbo-instruct", base_url=f"{url}/v1", api_key=KeyFunction(canary("key")), **options
    ).bind(extra_body={"password": canary("body")})


class KeyFunction:
    """A function that returns a key; on an event loop it returns an awaitable, as the SDK allows."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._key
        return asyncio.sleep(0, self._key)


def azure(url: str, canary: Canaries, **options: Any) -> Any:
    async def fresh() -> str:
        return canary("key")

    return AzureChatOpenAI(
        azure_endpoint=url,
        azure_deployment="gpt-4o",
        api_version="2024-10-21",
        azure_ad_token_provider=lambda: canary("key"),
        azure_ad_async_token_provider=fresh,
        default_headers={"Ocp-Apim-Subscription-Key": canary("gateway")},
        **options,
    )


class Closing(httpx2.Client):
    """A client of the application, which leaves no connection open."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limits=httpx2.Limits(max_keepalive_connections=0), **options)


class AsyncClosing(httpx2.AsyncClient):
    """The same on a loop."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limits=httpx2.Limits(max_keepalive_connections=0), **options)


def claude(url: str, canary: Canaries, **options: Any) -> Any:
    return ChatAnthropic(
        "claude-haiku-4-5",
        base_url=url.replace("://", f"://user:{canary('user').replace('/', '%2F')}@"),
        api_key=canary("key"),
        default_headers={"X-Gateway-Token": canary("gateway"), "X-Trace": "trace"},
        default_query={"sig": canary("query")},
        http_client=Closing(headers={"X-Client-Secret": canary("client")}),
        http_async_client=AsyncClosing(headers={"X-Client-Secret": canary("async-client")}),
        **options,
    ).bind(
        mcp_servers=[
            {"type": "url", "name": "x", "url": "https://mcp.invalid", "authorization_token": canary("mcp")}
        ],
        extra_body={"credentials": {"aws": canary("credentials")}},
        betas=["mcp-client-2025-11-20"],
    )


@pytest.fixture(params=[openai_chat, completions, azure, claude], ids=lambda made: made.__name__)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    found: Callable[..., Any] = request.param
    return found


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, canary: Canaries) -> None:
    """Environment variables with keys."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, canary(f"environment-{name}"))
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Custom-Token: {canary('custom')}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{canary('proxy').replace('/', '%2F')}@127.0.0.1:9")


def ask(model: Any, way: str, config: dict[str, Any]) -> str:
    """Make one call, and return the traceback of its error, or "" if it does not raise."""

    async def story() -> None:
        if way == "astream":
            async for _ in model.astream("Hi", config):
                pass
        else:
            await model.ainvoke("Hi", config)

    try:
        if way == "stream":
            list(model.stream("Hi", config))
        elif way == "invoke":
            model.invoke("Hi", config)
        else:
            asyncio.run(story())
    except Exception:
        told = traceback.format_exc()
        print(told)
        return told
    return ""


def everything(url: str, folder: Path) -> str:
    """The text of all files: the database, its log and an export, in which frames are not compressed."""
    export(url, folder / "export.jsonl")
    files = "".join(path.read_bytes().decode("latin-1") for path in sorted(folder.iterdir()))
    if url.startswith("sqlite"):
        return files
    tables = schema.metadata.tables
    return files + "".join(str(sql(url, f"SELECT CAST(t AS text) FROM {name} AS t")) for name in tables)


@pytest.mark.matrix
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("kind", ["refusal", "error in the stream", "good answer"])
@pytest.mark.parametrize("way", ["stream", "astream", "invoke", "ainvoke"])
def test_no_key_is_stored(
    make: Callable[..., Any], kind: str, way: str, canary: Canaries, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """No key is in the database, its log, an export or recorder's log, whatever SDK and answer."""
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    # A key that a function returns is not known before it is sent.
    own = "mine" if make in (completions, azure) else canary("key")
    config = {
        "configurable": {"api_key": canary("configurable"), "thread_id": "t-1", "hf_token": canary("hf")},
        "metadata": {
            "session_token": canary("metadata"),
            "plain": own,
            "count": 3,
            "max_tokens": 5,
        },
        "tags": ["a", own],
    }
    with (
        caplog.at_level(logging.DEBUG, "recorder"),
        repeating(kind) as provider,
        ChatHistoryCallback(url) as history,
    ):
        ask(make(provider.url, canary, callbacks=[history], max_retries=0), way, config)
        history.flush().wait(10)
        assert canary.found_in(everything(url, tmp_path)) == []
        assert provider.requests  # the request was sent with its keys
        assert canary.found_in(str(provider.requests)) != []
    assert canary.found_in(everything(url, tmp_path) + caplog.text + str(history.stats())) == []
    [(metadata, conversation)] = sql(url, "SELECT metadata, conversation_id FROM runs")
    found = json.loads(metadata)
    assert conversation == "t-1"
    assert (found["count"], found["max_tokens"]) == (3, 5)
    assert {"configurable.api_key", "configurable.hf_token", "metadata.session_token"} <= set(found[NOTE])
    with Replay(url) as replay:
        assert b"***" in b"".join(replay.frames(speed=None))
    assert "frames" in found[NOTE]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("way", ["stream", "astream"])
def test_no_key_is_in_the_error_of_a_connection(
    make: Callable[..., Any], way: str, canary: Canaries, tmp_path: Path
) -> None:
    """No server listens there, and the error may have the URL, the proxy and the request."""
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    with ChatHistoryCallback(url) as history:
        raised = ask(make("https://127.0.0.1:9", canary, callbacks=[history], max_retries=0), way, {})
    assert canary.found_in(raised) == []
    [(status, message)] = sql(url, "SELECT status, error_message FROM runs")
    assert (status, bool(message)) == ("error", True)
    assert canary.found_in(everything(url, tmp_path)) == []


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("made", [completions, azure])
@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_key_that_a_function_returned_is_masked_in_later_runs(
    made: Callable[..., Any], way: str, canary: Canaries, tmp_path: Path
) -> None:
    """The next run of the same model has it in its metadata under a harmless name."""
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    with repeating("good answer") as provider, ChatHistoryCallback(url) as history:
        model = made(provider.url, canary, callbacks=[history], max_retries=0)
        ask(model, way, {})
        ask(model, way, {"metadata": {"plain": canary("key")}})
    assert canary.found_in(everything(url, tmp_path)) == []


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("kind", ["refusal", "good answer"])
def test_no_canary_is_stored_on_postgres(
    make: Callable[..., Any], kind: str, canary: Canaries, postgres_url: str, tmp_path: Path
) -> None:
    """Not in any table, and not in an export."""
    with repeating(kind) as provider, ChatHistoryCallback(postgres_url) as history:
        ask(make(provider.url, canary, callbacks=[history], max_retries=0), "astream", {})
        assert canary.found_in(str(provider.requests)) != []
    found = everything(postgres_url, tmp_path)
    assert "frames" in found
    assert canary.found_in(found) == []


class Failing(SimpleChatModel):
    """Says in its error all that it is given."""

    def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
        yield "Hi"
        raise RuntimeError(json.dumps(options))


@pytest.mark.parametrize("way", ["stream", "astream", "invoke", "ainvoke"])
def test_no_canary_of_a_model_of_ones_own_is_stored(way: str, canary: Canaries, tmp_path: Path) -> None:
    """Its options may be keys, and headers with keys in them."""
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    with ChatHistoryCallback(url) as history:
        model = Failing(
            callbacks=[history],
            api_key=canary("key"),
            headers={"Authorization": f"Bearer {canary('header')}"},
            metadata={"session_token": canary("metadata"), "plain": canary("key")},
            tags=[canary("key")],
        ).bind(nested=[{"client_secret": canary("nested")}])
        assert "RuntimeError" in ask(model, way, {"configurable": {"hf_token": canary("configurable")}})
    assert canary.found_in(everything(url, tmp_path)) == []
    [(status, message)] = sql(url, "SELECT status, error_message FROM runs")
    assert (status, message.count("***")) == ("error", 3)


CLAUDE = ChatAnthropic("m", api_key="k")
REFUSED: dict[str, Callable[[str], Any]] = {
    "tool": lambda key: CLAUDE.bind_tools([{"authorization_token": key}]),
    "no tool": lambda key: CLAUDE.bind_tools([["token", {"secret": key}]]),
    "choice": lambda key: CLAUDE.bind_tools([], tool_choice=[{"api_key": key}]),
    "block": lambda key: CLAUDE.invoke([HumanMessage([{"api_key": key}])]),
    "image": lambda key: CLAUDE.invoke([HumanMessage([
        {"type": "image_url", "image_url": {"url": f"ftp://me:{key.replace('/', '%2F')}@x"}},
    ])]),
    "text": lambda key: ChatOpenAI("m", api_key="k").generate(f"https://x/?api_key={key}"),
    "no tool of OpenAI": lambda key: ChatOpenAI("m", api_key="k").bind_tools([[{"api_key": key}]]),
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_recorder_refuses_is_shown_without_its_keys(
    call: Callable[[str], Any], canary: Canaries
) -> None:
    """An error shows the beginning of what it was given."""
    with pytest.raises(ConfigError) as refused:
        call(canary("given"))
    assert canary.found_in("".join(traceback.format_exception(refused.value))) == []
