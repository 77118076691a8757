"""The server answers in a provider's place, from the recording."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from recorder.replay.http.match import Rules
from recorder.replay.pace import Options
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, song
from tests.oracle import new_url
from tests.server.proxy.calls import ASK, CHAT, client
from tests.server.proxy.proxying import KEY, proxying, replaying
from tests.server.serving import CLIENT, TOKEN, serving_processes

ANNA = "a-token-for-anna"
CLAUDE: dict[str, Any] = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": ASK["messages"]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a database with one call of each SDK, and of two users."""
    url = new_url(tmp_path_factory.mktemp("recorded"))
    with (
        LoopbackProvider() as provider,
        proxying(url, {"openai": provider.url, "anthropic": provider.url}) as proxy,
    ):
        client(proxy.url, default_headers={"x-recorder-user": "bob"}).chat.completions.create(**ASK)
        client(proxy.url, default_headers={"x-recorder-user": "anna"}).chat.completions.create(
            **ASK | {"user": "a"}
        )
        with anthropic.Anthropic(base_url=f"{proxy.url}/anthropic", api_key=KEY) as sdk:
            sdk.messages.create(**CLAUDE)
    return url


def test_sdks_are_answered_streamed_or_not(recorded: str) -> None:
    """A call that was recorded in one way is answered in the other one, too, and more than once."""
    with replaying(recorded) as address:
        for _ in range(2):
            assert client(address).chat.completions.create(**ASK).choices[0].message.content == song()
            events = client(address).chat.completions.create(**ASK, stream=True)
            assert "".join(event.choices[0].delta.content or "" for event in events) == song()
            with anthropic.Anthropic(base_url=f"{address}/anthropic", api_key=KEY) as sdk:
                assert sdk.messages.create(**CLAUDE).content[0].to_dict()["text"] == song()


def test_a_request_that_was_not_recorded_names_the_nearest(recorded: str) -> None:
    """In the provider's form, so that its SDK shows the text, and is not repeated."""
    with replaying(recorded) as address:
        other: Any = {"messages": [{"role": "user", "content": "Dance."}]}
        with pytest.raises(openai.NotFoundError, match="Dance") as found:
            client(address, max_retries=3).chat.completions.create(**ASK | other)
        assert "the nearest is run" in str(found.value)
        assert found.value.response.headers["x-should-retry"] == "false"
        with (
            anthropic.Anthropic(base_url=f"{address}/anthropic", api_key=KEY) as sdk,
            pytest.raises(anthropic.NotFoundError, match="Dance"),
        ):
            sdk.messages.create(**CLAUDE | other)


@pytest.mark.parametrize(
    ("path", "content", "fields"),
    [
        ("/openai/v1/chat/completions", b"no json", ["error", "message"]),
        ("/openai/v1/models", b"", ["error", "message"]),
        ("/openai/v1/chat/completions", b"[1]", ["error", "message"]),
        ("/anthropic/v1/messages/count_tokens", b"{}", ["error", "message"]),
        ("/google/v1beta/models/g:generateContent", b"{}", ["error", "status"]),
        ("/ollama/api/chat", b"{}", ["error"]),
    ],
)
def test_what_cannot_be_answered_is_an_error_of_the_provider(
    path: str, content: bytes, fields: list[str], recorded: str
) -> None:
    """404, with the text where the SDK looks for it. Paths of no upstream are those of the server."""
    with replaying(recorded) as address:
        found = CLIENT.post(address + path, content=content)
        assert found.status_code == 404
        if path.startswith(("/openai", "/anthropic")):
            value = found.json()
            for field in fields:
                value = value[field]
            assert value


def test_calls_are_used_in_their_order_and_once_if_it_is_asked_for(tmp_path: Path) -> None:
    """The rules are those of `Replay.http_client`; a repetition by the SDK gets the same answer again."""
    url, answers = new_url(tmp_path), iter(["One.", "Two."])
    with (
        LoopbackProvider(lambda body, path: next(answers)) as provider,
        proxying(url, {"openai": provider.url}) as proxy,
    ):
        for _ in range(2):
            client(proxy.url).chat.completions.create(**ASK)
    with replaying(url, rules=Rules()) as address:
        sdk = client(address)
        texts = [sdk.chat.completions.create(**ASK).choices[0].message.content for _ in range(2)]
        assert texts == ["One.", "Two."]
        with pytest.raises(openai.NotFoundError, match="recorded 2 times"):
            sdk.chat.completions.create(**ASK)
        repeated = sdk.chat.completions.create(**ASK, extra_headers={"x-stainless-retry-count": "1"})
        assert repeated.choices[0].message.content == "Two."


def test_errors_and_cuts_are_replayed(tmp_path: Path) -> None:
    """A status, an error in the stream, a stream that was cut, and a provider that did not answer."""
    url = new_url(tmp_path)
    frames = openai_chat_frames(["Hel", "lo"])
    script = {
        "refused": Answer.error(429, "Slow down."),
        "cut": Answer(frames=frames, cut_after=3),
        "failed": Answer(frames=[*frames[:2], b'data: {"error": {"message": "no memory"}}\n\n']),
    }
    with (
        LoopbackProvider(lambda body, path: script[body["messages"][0]["content"]]) as provider,
        proxying(url, {"openai": provider.url, "gone": "http://127.0.0.1:1"}) as proxy,
    ):
        live = {name: outcome(client(proxy.url), name) for name in script}
        assert outcome(client(proxy.url, "gone"), "gone")[1] == openai.InternalServerError
    with replaying(url) as address:
        for name, expected in live.items():
            assert outcome(client(address), name) == expected, name
        assert outcome(client(address), "gone") == ("", openai.InternalServerError)


def outcome(sdk: openai.OpenAI, question: str) -> tuple[str, type | None]:
    """Return the text of a stream and the class of its error."""
    text, messages = "", [{"role": "user", "content": question}]
    calls: Any = sdk.chat.completions
    try:
        for event in calls.create(model="m", messages=messages, stream=True):
            text += event.choices[0].delta.content or ""
    except Exception as error:
        return text, type(error)
    return text, None


def test_the_pace_is_the_recorded_one_or_any_other(tmp_path: Path) -> None:
    """By the server's options, and by the query of a call."""
    url = new_url(tmp_path)
    answer = Answer(frames=openai_chat_frames(["a", "b", "c", "d"]), interval=0.1)
    with LoopbackProvider(answer) as provider, proxying(url, {"openai": provider.url}) as proxy:
        list(client(proxy.url).chat.completions.create(**ASK, stream=True))

    def lasted(address: str, **query: Any) -> float:
        began = time.monotonic()
        for _ in client(address, default_query=query).chat.completions.create(**ASK, stream=True):
            pass
        return time.monotonic() - began

    with replaying(url, options=Options()) as address:
        at_once, recorded = lasted(address, speed="none"), lasted(address)
        assert recorded > 0.5 > at_once
        assert lasted(address, speed=4) < recorded
        assert lasted(address, max_gap=0) < recorded
        found = CLIENT.post(f"{address}/openai{CHAT}?speed=fast", json=ASK)
        assert (found.status_code, "speed is 'fast'" in found.json()["error"]["message"]) == (400, True)


def test_a_user_is_answered_by_its_own_recordings(recorded: str) -> None:
    """The token may come as the key of the client. The error for another one's call shows nothing of it."""
    with replaying(recorded, {ANNA: "anna", TOKEN: None}) as address:
        mine = client(address, api_key=ANNA).chat.completions
        assert mine.create(**ASK, user="a").choices[0].message.content == song()
        with pytest.raises(openai.NotFoundError) as found:
            mine.create(**ASK)
        assert "'user': 'a'" in str(found.value) or '"user"' in str(found.value)
        assert (
            client(address, api_key=TOKEN).chat.completions.create(**ASK).choices[0].message.content == song()
        )
        with pytest.raises(openai.AuthenticationError):
            client(address).chat.completions.create(**ASK)


def test_the_command_serves_a_recording(recorded: str) -> None:
    """With its options for the pace; the exit code is 0."""
    with serving_processes(recorded, 1, "--replay", "--speed", "1000", "--max-gap", "0") as [
        (process, address)
    ]:
        assert client(address).chat.completions.create(**ASK).choices[0].message.content == song()
        process.terminate()
        assert process.wait(10) == 0
