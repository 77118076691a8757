"""Genuine SDKs in Python and JavaScript record through the proxy, and replay, every stream of real providers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from recorder.replay import Replay
from recorder.testing import Answer, LoopbackProvider
from tests.genuine import Stream, anthropic_streams, chat_streams, name_of, responses_streams
from tests.oracle import new_url, sql
from tests.server.proxy.javascript_clients import JavaScriptCall, javascript_results
from tests.server.proxy.proxying import KEY, Proxied, proxying, replaying

STREAMS = [*chat_streams(), *anthropic_streams(), *responses_streams()]
BY_NAME = {stream.name: stream for stream in STREAMS}
#: The sizes of the HTTP chunks in which a provider sends a body; one of them for each stream.
CHUNKS: tuple[Any, ...] = ((1, 2, 3, 50), 4096, 2**20)

every_stream = pytest.mark.parametrize("stream", STREAMS or [None], ids=lambda each: each and name_of(each))


@dataclass(frozen=True, slots=True)
class Places:
    """The addresses that a client may have as its base URL."""

    provider: LoopbackProvider
    proxy: Proxied
    replay: str


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Yield a provider that answers with the stream whose name is the question, a proxy before it, and a replay."""
    url = new_url(tmp_path_factory.mktemp("genuine"))
    with (
        LoopbackProvider(
            lambda body, path: answer_of(BY_NAME[question_of(body).partition(" ")[0]])
        ) as provider,
        proxying(url, {"openai": provider.url, "anthropic": provider.url}) as proxy,
        replaying(url) as replay,
    ):
        yield Places(provider, proxy, replay)


def answer_of(stream: Stream) -> Answer:
    """Return the provider's response."""
    chunks = CHUNKS[len(stream.body) % len(CHUNKS)]
    return Answer(
        status=stream.status, body=stream.body, headers={"content-type": stream.content_type}, chunks=chunks
    )


def question_of(body: dict[str, Any]) -> str:
    """Return the text of the only message."""
    return str(body["input"] if "input" in body else body["messages"][0]["content"])


def kind_of(stream: Stream) -> str:
    """Return which API a stream is of."""
    if stream.path.endswith("/messages"):
        return "messages"
    return "responses" if "responses" in stream.path.split("/") else "chat"


def body_of(stream: Stream, question: str) -> dict[str, Any]:
    """Return the arguments of a call."""
    body = {"model": (stream.request or {}).get("model", "m"), "stream": True}
    if kind_of(stream) == "responses":
        return body | {"input": question}
    messages = {"messages": [{"role": "user", "content": question}]}
    return body | messages | ({"max_tokens": 100} if kind_of(stream) == "messages" else {})


def base_of(stream: Stream, address: str, *, is_provider: bool = False) -> str:
    """Return the base URL of the SDK's client."""
    if kind_of(stream) == "messages":
        return address if is_provider else f"{address}/anthropic"
    return f"{address}/v1" if is_provider else f"{address}/openai/v1"


def read(stream: Stream, base_url: str, question: str) -> tuple[list[Any], str]:
    """Return the events that the SDK gives, and the name and text of its error."""
    kind = kind_of(stream)
    make: Any = anthropic.Anthropic if kind == "messages" else openai.OpenAI
    events: list[Any] = []
    with make(base_url=base_url, api_key=KEY, max_retries=0) as client:
        resource = {"messages": "messages", "responses": "responses"}.get(kind)
        calls = getattr(client, resource) if resource else client.chat.completions
        try:
            with calls.create(**body_of(stream, question)) as found:
                events += [event.to_dict(warnings=False) for event in found]
        except (openai.APIError, anthropic.APIError) as error:
            return events, f"{type(error).__name__}: {error}"
    return events, ""


@pytest.mark.matrix
@every_stream
def test_pythons_sdks_get_the_same_through_the_proxy_and_from_the_recording(
    stream: Stream | None, places: Places
) -> None:
    """Events and error are equal in all three places, and the stored bytes are the provider's."""
    if stream is None:
        pytest.skip("no genuine provider streams")
    question = f"{stream.name} python"
    there = read(stream, base_of(stream, places.provider.url, is_provider=True), question)
    through = read(stream, base_of(stream, places.proxy.url), question)
    assert through == there
    url = places.proxy.stored()
    assert read(stream, base_of(stream, places.replay), question) == there
    [(run_id,)] = sql(url, "SELECT r.id FROM runs r JOIN messages m ON m.conversation_id = r.conversation_id "
                           "WHERE m.content = ? OR m.content = ?", question, json.dumps(question))  # fmt: skip
    with Replay(url) as replay:
        stored = b"".join(replay.frames(run_id, speed=None))
    assert hashlib.sha256(stored).digest() == hashlib.sha256(stream.body).digest() or through[1]


@pytest.fixture(scope="module")
def javascript(places: Places, request: pytest.FixtureRequest) -> dict[str, list[Any]]:
    """Return what JavaScript's SDKs get in all three places, for every stream whose test is run; in two processes."""
    items: Any = request.session.items
    chosen: Any = [
        item.callspec.params["stream"] for item in items if "javascript" in getattr(item, "fixturenames", ())
    ]
    streams = list({stream.name: stream for stream in chosen if stream is not None}.values())

    def calls(base: Any) -> list[JavaScriptCall]:
        return [
            JavaScriptCall(kind_of(each), base(each), body_of(each, f"{each.name} javascript"))
            for each in streams
        ]

    there = javascript_results([
        *calls(lambda each: base_of(each, places.provider.url, is_provider=True)),
        *calls(lambda each: base_of(each, places.proxy.url)),
    ])  # fmt: skip
    places.proxy.stored()
    again = javascript_results(calls(lambda each: base_of(each, places.replay)))
    count = len(streams)
    found = zip(there[:count], there[count:], again, strict=True)
    return {stream.name: list(results) for stream, results in zip(streams, found, strict=True)}


@pytest.mark.matrix
@every_stream
def test_javascripts_sdks_get_the_same_through_the_proxy_and_from_the_recording(
    stream: Stream | None, javascript: dict[str, list[Any]]
) -> None:
    """Events and error are equal in all three places."""
    if stream is None:
        pytest.skip("no genuine provider streams")
    there, through, again = javascript[stream.name]
    assert there["events"] > 0 or there["error"]
    assert through == there
    assert again == there


def test_the_key_of_a_client_is_nowhere(
    places: Places, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the request that the provider received; not in the database, and not in a log."""
    stream = Stream("canary", "openai", "/v1/chat/completions", None, 401, "application/json", b"")
    BY_NAME[stream.name] = stream
    read(stream, base_of(stream, places.proxy.url), "canary again")
    assert places.provider.requests[-1]["headers"]["authorization"] == f"Bearer {KEY}"
    file = Path(places.proxy.stored().removeprefix("sqlite:///"))
    for each in file.parent.glob(f"{file.name}*"):
        assert KEY.encode() not in each.read_bytes()
    assert KEY not in caplog.text
