"""The SDKs' own clients over a recording: genuine code receives genuine events, and makes no request."""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from recorder.errors import NotFound
from recorder.export import export, import_
from recorder.models import ChatOpenAI, OpenAI
from recorder.replay import NotRecorded, Replay
from recorder.testing import Answer, LoopbackProvider
from tests import anthropics
from tests.chatting import ROADS, Road, chat, history_at, name_of, recorded
from tests.genuine import Stream, anthropic_streams, chat_streams
from tests.oracle import new_url

both = pytest.mark.parametrize("road", ROADS, ids=name_of)
CHATS = [stream for stream in chat_streams() if stream.status == 200]
genuine = pytest.mark.parametrize("stream", CHATS, ids=lambda stream: stream.name)
genuine_anthropic = pytest.mark.parametrize("stream", anthropic_streams(), ids=lambda stream: stream.name)

#: What our models send for "Hi", as an SDK's user writes it.
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
ASK_ANTHROPIC = {"model": "claude-haiku-4-5", "max_tokens": 1_000, "messages": ASK["messages"]}


def client(replay: Replay, **options: Any) -> openai.OpenAI:
    """OpenAI's SDK over a recording."""
    return openai.OpenAI(api_key="any", max_retries=0, http_client=replay.http_client(**options))


def live_client(provider: LoopbackProvider) -> openai.OpenAI:
    """The same over the provider itself."""
    return openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0)


def aclient(replay: Replay, **options: Any) -> openai.AsyncOpenAI:
    """The same on an event loop."""
    return openai.AsyncOpenAI(api_key="any", max_retries=0, http_client=replay.http_async_client(**options))


def claude(replay: Replay, **options: Any) -> anthropic.Anthropic:
    """Anthropic's SDK over a recording."""
    return anthropic.Anthropic(api_key="any", max_retries=0, http_client=replay.http_client(**options))


def aclaude(replay: Replay, **options: Any) -> anthropic.AsyncAnthropic:
    """The same on an event loop."""
    return anthropic.AsyncAnthropic(
        api_key="any", max_retries=0, http_client=replay.http_async_client(**options)
    )


@contextmanager
def recording(answer: Any, url: str | Path, **options: Any) -> Iterator[Any]:
    """A model of a provider that answers so, with everything recorded afterwards."""
    with LoopbackProvider(answer) as provider, history_at(url, **options) as history:
        yield provider, history


def record(answer: Any, url: str | Path, road: Road = ROADS[0], **options: Any) -> str:
    """One stream of "Hi" through our model into a database; its URL."""
    with recording(answer, url, **options) as (provider, history):
        try:
            road.stream(chat(provider, callbacks=[history]), "Hi")
        except openai.APIError:
            pass  # recorded, too
        return str(history.recorder.url)


def record_claude(answer: Any, url: str | Path, road: Road = ROADS[0], **options: Any) -> str:
    """The same with Anthropic's."""
    with recording(answer, url, **options) as (provider, history):
        try:
            road.stream(anthropics.chat(provider, callbacks=[history], max_tokens=1_000), "Hi")
        except anthropic.APIError:
            pass  # recorded, too
        return str(history.recorder.url)


def outcome(work: Any) -> Any:
    """What comes of it, or the error's class and message."""
    try:
        return work()
    except (openai.APIError, anthropic.APIError) as error:
        return type(error), str(error)


def chunks_of(sdk: openai.OpenAI) -> list[Any]:
    """The chunks that the SDK gives, and its error as the last."""
    found: list[Any] = []
    try:
        with sdk.chat.completions.create(**ASK, **USAGE, stream=True) as stream:
            found += [chunk.model_dump() for chunk in stream]
    except openai.APIError as error:
        found.append((type(error), str(error)))
    return found


def moved(url: str, folder: Path) -> str:
    """Another database, into which the whole of this one was exported and imported."""
    file, other = io.StringIO(), f"sqlite:///{folder / 'imported.db'}"
    export(url, file)
    file.seek(0)
    import_(other, file)
    return other


# -- every genuine stream ---------------------------------------------------------------------------------------


@pytest.mark.matrix
@genuine
def test_every_chat_stream_comes_back(stream: Stream, database: str) -> None:
    """Recorded over a socket, replayed through the SDK: the bytes, and what the SDK makes of them, are the same."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    answer = Answer(frames=[stream.body], chunks=[chance.randrange(1, 900) for _ in range(50)])
    with recording(answer, database) as (provider, history):
        model = chat(provider, callbacks=[history])
        outcome(lambda: list(model.stream("Hi")))
        with live_client(provider) as live:
            expected = chunks_of(live)
    with Replay(database) as replay:
        with client(replay).chat.completions.with_streaming_response.create(
            **ASK, **USAGE, stream=True
        ) as raw:
            assert raw.headers["content-type"].startswith("text/event-stream")
            assert raw.read() == recorded(database).body
        assert chunks_of(client(replay)) == expected


@pytest.mark.matrix
@genuine
def test_the_sdks_accumulator_hears_the_same(stream: Stream, database: str, tmp_path: Path) -> None:
    """Through its `.stream()` helper, as the live provider's; also out of what was exported and imported."""

    def final(sdk: openai.OpenAI) -> Any:
        with sdk.chat.completions.stream(**ASK, **USAGE) as found:
            return found.get_final_completion().model_dump()

    answer = Answer(frames=[stream.body])
    with LoopbackProvider(answer) as provider, live_client(provider) as live:
        expected = _final_or_error(lambda: final(live))
    record(answer, database)
    for url in (database, moved(database, tmp_path)):
        with Replay(url) as replay:
            assert _final_or_error(lambda replay=replay: final(client(replay))) == expected


def _final_or_error(work: Any) -> Any:
    """The helper itself cannot read all that providers send."""
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.matrix
@genuine_anthropic
def test_every_anthropic_stream_comes_back(stream: Stream, database: str, tmp_path: Path) -> None:
    """The same for Anthropic's, and its accumulated message; also out of what was exported and imported."""
    answer = Answer(frames=[stream.body], chunks=[7, 100, 1, 33])
    with recording(answer, database) as (provider, history):
        list(anthropics.chat(provider, callbacks=[history], max_tokens=1_000).stream("Hi"))
        with anthropics.sdk(provider).beta.messages.stream(**ASK_ANTHROPIC) as live:
            expected = live.get_final_message()
    for url in (database, moved(database, tmp_path)):
        with Replay(url) as replay:
            with claude(replay).messages.with_streaming_response.create(**ASK_ANTHROPIC, stream=True) as raw:
                assert raw.read() == stream.body == recorded(url).body
            with claude(replay).beta.messages.stream(**ASK_ANTHROPIC) as replayed:
                assert replayed.get_final_message() == expected


@pytest.mark.matrix
@genuine
def test_a_chat_stream_without_frames(stream: Stream, tmp_path: Path) -> None:
    """Recorded as tokens only: text, thoughts, calls, end and usage are what they were."""
    answer = Answer(frames=[stream.body])
    with LoopbackProvider(answer) as provider:
        expected = _final(chat(provider))
    url = record(answer, tmp_path, capture="tokens")
    assert recorded(url).body == b""
    with Replay(url) as replay:
        found = _final(chat_over(replay))
    assert found == expected


def chat_over(replay: Replay) -> Any:
    """Our model over the SDK over the recording."""
    return ChatOpenAI(model="gpt-4o", api_key="any", max_retries=0, http_client=replay.http_client())


def _final(model: Any) -> Any:
    try:
        first, *others = model.stream("Hi")
    except openai.APIError as error:
        return str(error)
    total = first + others
    return {
        "text": total.text,
        "reasoning": total.additional_kwargs.get("reasoning_content"),
        "calls": [(call["id"], call["name"], call["args"]) for call in total.tool_calls],
        "finish": total.response_metadata.get("finish_reason"),
        "usage": total.usage_metadata,
    }


@genuine_anthropic
def test_an_anthropic_stream_without_frames(stream: Stream, tmp_path: Path) -> None:
    """The SDK reads the same blocks, end and usage out of what is encoded."""
    answer = Answer(frames=[stream.body])
    with (
        LoopbackProvider(answer) as provider,
        anthropics.sdk(provider).beta.messages.stream(**ASK_ANTHROPIC) as live,
    ):
        expected = live.get_final_message()
    url = record_claude(answer, tmp_path, capture="tokens")
    with Replay(url) as replay, claude(replay).beta.messages.stream(**ASK_ANTHROPIC) as replayed:
        found = replayed.get_final_message()
    assert anthropics.blocks_of(found) == anthropics.blocks_of(expected)
    assert (found.id, found.model, found.stop_reason) == (expected.id, expected.model, expected.stop_reason)
    assert found.usage.output_tokens == expected.usage.output_tokens


# -- roads, requests, answers -------------------------------------------------------------------------------------


def test_on_an_event_loop(tmp_path: Path) -> None:
    """Both asynchronous SDKs: streamed, and the helper."""
    url = record("The water sparkles.", tmp_path)
    record_claude("The water is still.", url)

    async def main() -> tuple[str, str]:
        async with Replay(url) as replay:
            stream = await aclient(replay).chat.completions.create(**ASK, **USAGE, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            async with aclaude(replay).messages.stream(**ASK_ANTHROPIC) as helper:
                return text, await helper.get_final_text()

    assert asyncio.run(main()) == ("The water sparkles.", "The water is still.")


def test_a_loop_goes_on_while_the_recording_is_read(tmp_path: Path) -> None:
    """The loop comes round many times while two streams wait for what is due a little later."""
    url = new_url(tmp_path)
    answer = Answer(frames=[b"data: [DONE]\n\n"], delay=0.3)
    record(answer, url)
    record(answer, url)

    async def read(sdk: openai.AsyncOpenAI) -> None:
        async for _ in await sdk.chat.completions.create(**ASK, stream=True):
            pass

    async def main() -> int:
        async with Replay(url) as replay:
            sdk = aclient(replay, speed=1.0)
            both = asyncio.gather(read(sdk), read(sdk))
            rounds = 0
            while not both.done():
                await asyncio.sleep(0.001)
                rounds += 1
            await both
            return rounds

    assert asyncio.run(main()) > 10


def test_a_whole_answer_of_a_stream_and_a_stream_of_a_whole_answer(tmp_path: Path) -> None:
    """Whichever was recorded, the client gets what it asks for."""
    url = new_url(tmp_path)
    with recording("Hello there!", url) as (provider, history):
        model = chat(provider, callbacks=[history])
        list(model.stream("Hi"))
        reply = model.invoke("Hi", temperature=0)
    with Replay(url) as replay:
        completion = client(replay).chat.completions.create(**ASK)
        assert completion.choices[0].message.content == "Hello there!"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage is not None
        same = client(replay).chat.completions.with_raw_response.create(**ASK, temperature=0)
        assert same.headers["content-type"] == "application/json"
        assert same.parse().id == reply.response_metadata["id"]
        with client(replay).chat.completions.create(**ASK, temperature=0, stream=True) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text == "Hello there!"


def test_usage_comes_to_who_asks_for_it(tmp_path: Path) -> None:
    """Our models ask for it; a client that does not gets no event without choices, which would break it."""
    url = record("Hello there!", tmp_path)
    with Replay(url) as replay:
        with client(replay).chat.completions.create(**ASK, stream=True) as stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there!"
        with client(replay).chat.completions.create(**ASK, **USAGE, stream=True) as stream:
            *_, last = stream
        assert last.usage is not None
        assert last.usage.total_tokens > 0


def test_structured_output(tmp_path: Path) -> None:
    """`parse` of the SDK, out of a recorded answer."""
    import pydantic

    class City(pydantic.BaseModel):
        name: str

    url = new_url(tmp_path)
    with recording(json.dumps({"name": "Rome"}), url) as (provider, history):
        from openai.lib._parsing import type_to_response_format_param as schema_of

        chat(provider, callbacks=[history]).invoke("Hi", response_format=schema_of(City))
    with Replay(url) as replay:
        parsed = client(replay).chat.completions.parse(**ASK, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Rome")


def test_legacy_completions(tmp_path: Path) -> None:
    """The third format, streamed and whole."""
    with recording("once upon a time", tmp_path) as (provider, history):
        llm = OpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
        "".join(llm.stream("Tell"))
        url = history.recorder.url
    ask: dict[str, Any] = {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": "Tell",
        "temperature": 0.7,
        "max_tokens": 256,
    }
    with Replay(url) as replay:
        assert client(replay).completions.create(**ask).choices[0].text == "once upon a time"
        with client(replay).completions.create(**ask, stream=True) as stream:
            assert "".join(chunk.choices[0].text for chunk in stream) == "once upon a time"


def test_azures_paths(tmp_path: Path) -> None:
    """Each deployment has a path of its own."""
    url = record("Hello there!", tmp_path)
    with Replay(url) as replay:
        azure = openai.AzureOpenAI(
            azure_endpoint="https://replayed.invalid", azure_deployment="d", api_version="v", api_key="any",
            http_client=replay.http_client(),
        )  # fmt: skip
        assert azure.chat.completions.create(**ASK).choices[0].message.content == "Hello there!"


def test_the_older_http_library(tmp_path: Path) -> None:
    """OpenAI's SDK takes clients of it too; so does a bare request of another tool."""
    url = record("Hello there!", tmp_path)
    with Replay(url) as replay:
        older = replay.http_client(library="httpx", allow_playback_repeats=True)
        assert type(older) is httpx.Client
        sdk = openai.OpenAI(api_key="any", http_client=replay.http_client(library="httpx"))
        assert sdk.chat.completions.create(**ASK).choices[0].message.content == "Hello there!"
        bare = older.post("https://any.invalid/v1/chat/completions", json=ASK).json()
        assert bare["choices"][0]["message"]["content"] == "Hello there!"
        assert isinstance(replay.http_async_client(library="httpx"), httpx.AsyncClient)
        assert isinstance(replay.http_client(), httpx2.Client)


def test_another_providers_run(tmp_path: Path) -> None:
    """Matched on what is said: OpenAI's client hears what Claude said, and the other way round."""
    url = record_claude("The water is still.", tmp_path)
    with Replay(url) as replay:
        sdk = client(replay, match_on=("messages",))
        assert sdk.chat.completions.create(**ASK).choices[0].message.content == "The water is still."
    (tmp_path / "other").mkdir()
    url = record("The water sparkles.", tmp_path / "other")
    with (
        Replay(url) as replay,
        claude(replay, match_on=("messages",)).messages.stream(**ASK_ANTHROPIC) as stream,
    ):
        assert stream.get_final_text() == "The water sparkles."


def test_a_run_by_its_id(tmp_path: Path) -> None:
    """Whatever is asked, a header can name the run that is to answer."""
    url = record("Hello there!", tmp_path)
    run_id = recorded(url).run["id"]
    with Replay(url) as replay:
        answer = client(replay).chat.completions.with_raw_response.create(
            model="any",
            messages=[{"role": "user", "content": "other"}],
            extra_headers={"x-recorder-run": run_id},
        )
        assert answer.headers["x-recorder-run"] == run_id
        assert answer.parse().choices[0].message.content == "Hello there!"


@pytest.mark.parametrize("named", ["abc", "0193c0de-0000-7000-8000-000000000001", "' OR 1=1", "\\x00"])
def test_a_header_that_names_no_run_is_told(tmp_path: Path, named: str) -> None:
    """In recorder's words, whatever is written there; both SDKs let it through."""
    url = record("Hello there!", tmp_path)
    more: Any = {"extra_headers": {"x-recorder-run": named}}
    with Replay(url) as replay:
        with pytest.raises(NotFound, match=f"No run {re.escape(named)} is stored"):
            client(replay).chat.completions.create(**ASK, **more)
        with pytest.raises(NotFound, match=f"No run {re.escape(named)} is stored"):
            claude(replay).messages.create(**ASK_ANTHROPIC, **more)


def test_leaving_early_and_asking_again(tmp_path: Path) -> None:
    """A stream that is left lets go; the next request goes on with the next run."""
    url = record("one two three", tmp_path)
    record("four five six", url)
    with Replay(url) as replay:
        sdk = client(replay)
        with sdk.chat.completions.create(**ASK, stream=True) as stream:
            next(iter(stream))
        assert sdk.chat.completions.create(**ASK).choices[0].message.content == "four five six"


def test_a_client_keeps_its_replay(tmp_path: Path) -> None:
    """Nobody has to hold the `Replay` itself; one that was closed says so."""
    url = record("Hello there!", tmp_path)
    sdk = openai.OpenAI(api_key="any", http_client=Replay(url).http_client())
    assert sdk.chat.completions.create(**ASK).choices[0].message.content == "Hello there!"
    replay = Replay(url)
    closed = client(replay)
    replay.close()
    with pytest.raises(Exception, match="This replay is closed"):
        closed.chat.completions.create(**ASK)


# -- ends -----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("capture", ["wire", "tokens"])
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_http_error_comes_back(status: int, capture: str, road: Road, tmp_path: Path) -> None:
    """As the same class, message, status and body, streamed or not, at once."""
    url = record(Answer.error(status), tmp_path, road, capture=capture)
    with (
        LoopbackProvider(Answer.error(status)) as provider,
        live_client(provider) as live,
        pytest.raises(openai.APIStatusError) as expected,
    ):
        live.chat.completions.create(**ASK)
    with Replay(url) as replay:
        http = replay.http_client(allow_playback_repeats=True)
        each: list[dict[str, Any]] = [{}, {"stream": True}]
        for options in each:
            with pytest.raises(openai.APIStatusError) as found:
                openai.OpenAI(api_key="any", http_client=http).chat.completions.create(**ASK, **options)
            assert type(found.value) is type(expected.value)
            assert str(found.value) == str(expected.value)
            assert found.value.status_code == status
            if capture == "wire":  # the message does not say all of it
                assert found.value.body == expected.value.body


def test_anthropics_errors_come_back(tmp_path: Path) -> None:
    """The same in its words; and OpenAI's client hears it in OpenAI's."""
    url = record_claude(Answer.anthropic_error(529), tmp_path)
    with Replay(url) as replay:
        with pytest.raises(anthropic.APIStatusError, match="Overloaded") as found:
            claude(replay).messages.create(**ASK_ANTHROPIC)
        assert found.value.status_code == 529
        with pytest.raises(openai.InternalServerError, match="Overloaded") as translated:
            client(replay, match_on=("messages",)).chat.completions.create(**ASK)
        assert translated.value.body == {
            "message": "Overloaded", "type": "overloaded_error", "param": None, "code": None
        }  # fmt: skip


def test_a_refusal_that_is_no_json_comes_back(tmp_path: Path) -> None:
    """A proxy's page for people."""
    page = Answer(status=502, body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"})
    url = record(page, tmp_path)
    with Replay(url) as replay, pytest.raises(openai.InternalServerError, match="Error code: 502") as found:
        client(replay).chat.completions.create(**ASK)
    assert found.value.body == "<html>Bad gateway</html>"


def test_no_connection(tmp_path: Path) -> None:
    """A connection error is one again, and a retry of the SDK gets the same."""
    with history_at(tmp_path) as history:
        nowhere = ChatOpenAI(
            model="gpt-4o",
            base_url="http://127.0.0.1:9/v1",
            api_key="any",
            max_retries=0,
            callbacks=[history],
        )
        with pytest.raises(openai.APIConnectionError):
            nowhere.invoke("Hi")
        url = history.recorder.url
    with Replay(url) as replay:
        sdk = openai.OpenAI(api_key="any", max_retries=1, http_client=replay.http_client())
        with pytest.raises(openai.APIConnectionError) as found:
            sdk.chat.completions.create(**ASK)
        assert isinstance(found.value.__cause__, httpx2.ConnectError)


@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_a_stream_that_broke_breaks_there(capture: str, tmp_path: Path) -> None:
    """With what had come, also where that is encoded."""
    url = new_url(tmp_path)
    frames = [b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'] * 3
    record(Answer(frames=frames, cut_after=2), url, capture=capture)
    heard: list[str] = []
    with Replay(url) as replay, client(replay).chat.completions.create(**ASK, stream=True) as stream:
        texts = (chunk.choices[0].delta.content or "" for chunk in stream)
        with pytest.raises(openai.APIConnectionError):
            heard.extend(texts)
    assert "".join(heard) == "HelHel"


@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_an_error_in_the_stream_comes_back(capture: str, tmp_path: Path) -> None:
    """Where it was, as the SDK raises it."""
    frames = [
        b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n',
        b'data: {"error":{"message":"The server is tired","type":"server_error"}}\n\n',
    ]
    url = record(Answer(frames=frames), tmp_path, capture=capture)
    with Replay(url) as replay:
        http = replay.http_client(allow_playback_repeats=True)
        sdk = openai.OpenAI(api_key="any", max_retries=0, http_client=http)
        with pytest.raises(openai.APIError, match="The server is tired"):
            list(sdk.chat.completions.create(**ASK, stream=True))
        with pytest.raises(openai.InternalServerError, match="The server is tired"):
            sdk.chat.completions.create(**ASK)


def test_a_stream_that_was_left_ends_there(tmp_path: Path) -> None:
    """Who leaves at the same place notices nothing; who goes on is told that there is no more."""
    with recording("one two three four five", tmp_path) as (provider, history):
        for chunk in chat(provider, callbacks=[history]).stream("Hi"):
            if chunk.content:
                break
        url = history.recorder.url
    with Replay(url) as replay:
        stream = client(replay).chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIConnectionError):
            list(stream)


def test_a_run_with_a_gap_is_refused(tmp_path: Path) -> None:
    """No client can be shown that tokens are missing."""
    import sqlite3

    url = record("one two three", tmp_path)
    run_id = recorded(url).run["id"]
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("INSERT INTO gaps VALUES (?, 3, 2, 'no room')", (run_id,))
    connection.close()
    with Replay(url) as replay, pytest.raises(Exception, match=r"lost 2 tokens \(no room\); record it again"):
        client(replay).chat.completions.create(**ASK)


# -- misses ---------------------------------------------------------------------------------------------------------


def test_a_miss_is_loud(tmp_path: Path) -> None:
    """As `NotRecorded` through both SDKs, on both roads, without a retry."""
    url = record("Hello there!", tmp_path)
    other: Any = {**ASK, "messages": [{"role": "user", "content": "Ho"}]}
    with Replay(url) as replay:
        with pytest.raises(NotRecorded, match='-      "text": "Hi"'):
            openai.OpenAI(api_key="any", http_client=replay.http_client()).chat.completions.create(**other)
        with pytest.raises(NotRecorded, match="No recorded run answers this request"):
            anthropic.Anthropic(api_key="any", http_client=replay.http_client()).messages.create(
                **ASK_ANTHROPIC
            )

        async def main() -> None:
            with pytest.raises(NotRecorded):
                await aclient(replay).chat.completions.create(**other)
            with pytest.raises(NotRecorded):
                await aclaude(replay).messages.create(**ASK_ANTHROPIC)

        asyncio.run(main())


def test_what_is_no_question_to_a_model_is_refused(tmp_path: Path) -> None:
    """Other paths, other methods, other bodies."""
    url = record("Hello there!", tmp_path)
    with Replay(url) as replay:
        with pytest.raises(NotRecorded, match="GET /v1/models is not answered from a recording"):
            client(replay).models.list()
        bare = replay.http_client()
        for content, message in ((b"{", "is not JSON"), (b"[]", "is not a JSON object")):
            with pytest.raises(NotRecorded, match=message):
                bare.post("https://any.invalid/v1/chat/completions", content=content)
        with pytest.raises(ValueError, match="library is 'requests'"):
            replay.http_client(library="requests")
