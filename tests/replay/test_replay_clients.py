"""SDK clients over a recording receive the recorded events and send no request."""

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
from tests.chatting import CALL_STYLES, CallStyle, chat, history_at, name_of, recorded
from tests.genuine import Stream, anthropic_streams, chat_streams
from tests.oracle import new_url

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
CHATS = [stream for stream in chat_streams() if stream.status == 200]
genuine = pytest.mark.parametrize("stream", CHATS, ids=lambda stream: stream.name)
genuine_anthropic = pytest.mark.parametrize("stream", anthropic_streams(), ids=lambda stream: stream.name)

#: The arguments of an SDK call that equal the request of our models for "Hi".
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
ASK_ANTHROPIC = {"model": "claude-haiku-5-5", "max_tokens": 1_000, "messages": ASK["messages"]}


def client(replay: Replay, **options: Any) -> openai.OpenAI:
    """Return OpenAI's SDK over a recording."""
    return openai.OpenAI(api_key="any", max_retries=0, http_client=replay.http_client(**options))


def live_client(provider: LoopbackProvider) -> openai.OpenAI:
    """Return OpenAI's SDK over the provider itself."""
    return openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0)


def aclient(replay: Replay, **options: Any) -> openai.AsyncOpenAI:
    """Return OpenAI's asynchronous SDK over a recording."""
    return openai.AsyncOpenAI(api_key="any", max_retries=0, http_client=replay.http_async_client(**options))


def claude(replay: Replay, **options: Any) -> anthropic.Anthropic:
    """Return Anthropic's SDK over a recording."""
    return anthropic.Anthropic(api_key="any", max_retries=0, http_client=replay.http_client(**options))


def aclaude(replay: Replay, **options: Any) -> anthropic.AsyncAnthropic:
    """Return Anthropic's asynchronous SDK over a recording."""
    return anthropic.AsyncAnthropic(
        api_key="any", max_retries=0, http_client=replay.http_async_client(**options)
    )


@contextmanager
def recording(answer: Any, url: str | Path, **options: Any) -> Iterator[Any]:
    """Yield a provider with this answer and a recorder; at the end everything is stored."""
    with LoopbackProvider(answer) as provider, history_at(url, **options) as history:
        yield provider, history


def record(answer: Any, url: str | Path, style: CallStyle = CALL_STYLES[0], **options: Any) -> str:
    """Record one stream of "Hi" through our OpenAI model, and return the URL of the database."""
    with recording(answer, url, **options) as (provider, history):
        try:
            style.stream(chat(provider, callbacks=[history]), "Hi")
        except openai.APIError:
            pass  # the failed run is recorded, too
        return str(history.recorder.url)


def record_claude(answer: Any, url: str | Path, style: CallStyle = CALL_STYLES[0], **options: Any) -> str:
    """Record one stream of "Hi" through our Anthropic model, and return the URL of the database."""
    with recording(answer, url, **options) as (provider, history):
        try:
            style.stream(anthropics.chat(provider, callbacks=[history], max_tokens=1_000), "Hi")
        except anthropic.APIError:
            pass  # the failed run is recorded, too
        return str(history.recorder.url)


def outcome(work: Any) -> Any:
    """Return the result of some work, or the class and message of its error."""
    try:
        return work()
    except (openai.APIError, anthropic.APIError) as error:
        return type(error), str(error)


def chunks_of(sdk: openai.OpenAI) -> list[Any]:
    """Return the chunks that the SDK yields, and its error as the last one."""
    found: list[Any] = []
    try:
        with sdk.chat.completions.create(**ASK, **USAGE, stream=True) as stream:
            found += [chunk.model_dump() for chunk in stream]
    except openai.APIError as error:
        found.append((type(error), str(error)))
    return found


def moved(url: str, folder: Path) -> str:
    """Export a database, import it into a new one, and return that one's URL."""
    file, other = io.StringIO(), f"sqlite:///{folder / 'imported.db'}"
    export(url, file)
    file.seek(0)
    import_(other, file)
    return other


# -- every genuine stream ---------------------------------------------------------------------------------------


@pytest.mark.matrix
@genuine
def test_a_replayed_chat_stream_equals_the_live_one(stream: Stream, database: str) -> None:
    """The bytes and the SDK's chunks of every genuine stream are the same."""
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
def test_the_sdks_final_completion_of_a_replay_equals_the_live_one(
    stream: Stream, database: str, tmp_path: Path
) -> None:
    """This holds for an exported and imported recording, too."""

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
    """Return a result, or the error of the SDK's accumulator, which cannot read every stream of providers."""
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.matrix
@genuine_anthropic
def test_a_replayed_anthropic_stream_equals_the_live_one(
    stream: Stream, database: str, tmp_path: Path
) -> None:
    """Bytes and final message are the same, also of an exported and imported recording."""
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
def test_a_chat_stream_is_replayed_from_its_tokens(stream: Stream, tmp_path: Path) -> None:
    """Without frames, text, reasoning, calls, finish reason and usage are the same."""
    answer = Answer(frames=[stream.body])
    with LoopbackProvider(answer) as provider:
        expected = _final(chat(provider))
    url = record(answer, tmp_path, capture="tokens")
    assert recorded(url).body == b""
    with Replay(url) as replay:
        found = _final(chat_over(replay))
    assert found == expected


def chat_over(replay: Replay) -> Any:
    """Return our model over the SDK over the recording."""
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
def test_an_anthropic_stream_is_replayed_from_its_tokens(stream: Stream, tmp_path: Path) -> None:
    """Without frames, the SDK reads the same blocks, stop reason and usage."""
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


# -- requests and answers -----------------------------------------------------------------------------------------


def test_asynchronous_sdks_read_a_recording(tmp_path: Path) -> None:
    """Streams and the SDK's stream helper work."""
    url = record("The water sparkles.", tmp_path)
    record_claude("The water is still.", url)

    async def main() -> tuple[str, str]:
        async with Replay(url) as replay:
            stream = await aclient(replay).chat.completions.create(**ASK, **USAGE, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            async with aclaude(replay).messages.stream(**ASK_ANTHROPIC) as helper:
                return text, await helper.get_final_text()

    assert asyncio.run(main()) == ("The water sparkles.", "The water is still.")


def test_a_replay_does_not_block_the_event_loop(tmp_path: Path) -> None:
    """The loop runs many turns while two streams wait for events that are due in 0.3 s."""
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


def test_a_recorded_stream_also_answers_a_request_without_a_stream(tmp_path: Path) -> None:
    """A recorded complete answer is streamed, too, if the request asks for it."""
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


def test_the_usage_event_is_sent_only_if_requested(tmp_path: Path) -> None:
    """An event without choices would break clients that do not expect it."""
    url = record("Hello there!", tmp_path)
    with Replay(url) as replay:
        with client(replay).chat.completions.create(**ASK, stream=True) as stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there!"
        with client(replay).chat.completions.create(**ASK, **USAGE, stream=True) as stream:
            *_, last = stream
        assert last.usage is not None
        assert last.usage.total_tokens > 0


def test_structured_output_is_parsed_from_a_recording(tmp_path: Path) -> None:
    """The SDK's `parse` works over a recorded answer."""
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


def test_legacy_completions_are_replayed(tmp_path: Path) -> None:
    """Streams and complete answers work."""
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


def test_azures_paths_are_answered(tmp_path: Path) -> None:
    """Azure has a path for each deployment."""
    url = record("Hello there!", tmp_path)
    with Replay(url) as replay:
        azure = openai.AzureOpenAI(
            azure_endpoint="https://replayed.invalid", azure_deployment="d", api_version="v", api_key="any",
            http_client=replay.http_client(),
        )  # fmt: skip
        assert azure.chat.completions.create(**ASK).choices[0].message.content == "Hello there!"


def test_a_replay_makes_httpx_clients_too(tmp_path: Path) -> None:
    """OpenAI's SDK and a bare request both work with them."""
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


def test_a_run_of_another_provider_is_translated(tmp_path: Path) -> None:
    """With `match_on=("messages",)` OpenAI's client gets an answer of Claude, and the reverse."""
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


def test_a_header_can_name_the_run_that_answers(tmp_path: Path) -> None:
    """The request itself is not compared."""
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
def test_a_header_with_an_unknown_run_is_refused(tmp_path: Path, named: str) -> None:
    """Both SDKs raise recorder's error, whatever the header contains."""
    url = record("Hello there!", tmp_path)
    more: Any = {"extra_headers": {"x-recorder-run": named}}
    with Replay(url) as replay:
        with pytest.raises(NotFound, match=f"No run {re.escape(named)} is stored"):
            client(replay).chat.completions.create(**ASK, **more)
        with pytest.raises(NotFound, match=f"No run {re.escape(named)} is stored"):
            claude(replay).messages.create(**ASK_ANTHROPIC, **more)


def test_a_request_after_an_unread_stream_gets_the_next_run(tmp_path: Path) -> None:
    """A stream that was not read to its end counts as answered."""
    url = record("one two three", tmp_path)
    record("four five six", url)
    with Replay(url) as replay:
        sdk = client(replay)
        with sdk.chat.completions.create(**ASK, stream=True) as stream:
            next(iter(stream))
        assert sdk.chat.completions.create(**ASK).choices[0].message.content == "four five six"


def test_a_client_keeps_its_replay_alive(tmp_path: Path) -> None:
    """After the replay was closed, the client's requests raise an error."""
    url = record("Hello there!", tmp_path)
    sdk = openai.OpenAI(api_key="any", http_client=Replay(url).http_client())
    assert sdk.chat.completions.create(**ASK).choices[0].message.content == "Hello there!"
    replay = Replay(url)
    closed = client(replay)
    replay.close()
    with pytest.raises(Exception, match="This replay is closed"):
        closed.chat.completions.create(**ASK)


# -- ends and errors ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("capture", ["wire", "tokens"])
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_recorded_http_error_is_raised_by_the_sdk(
    status: int, capture: str, style: CallStyle, tmp_path: Path
) -> None:
    """Class, message, status and body are the same, with and without a stream."""
    url = record(Answer.error(status), tmp_path, style, capture=capture)
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
            if capture == "wire":  # without frames only the message is stored
                assert found.value.body == expected.value.body


def test_a_recorded_anthropic_error_is_raised_by_both_sdks(tmp_path: Path) -> None:
    """OpenAI's client gets it in OpenAI's format."""
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


def test_a_recorded_error_page_is_raised_by_the_sdk(tmp_path: Path) -> None:
    """The body of the error is the page."""
    page = Answer(status=502, body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"})
    url = record(page, tmp_path)
    with Replay(url) as replay, pytest.raises(openai.InternalServerError, match="Error code: 502") as found:
        client(replay).chat.completions.create(**ASK)
    assert found.value.body == "<html>Bad gateway</html>"


def test_a_recorded_connection_error_is_raised_by_the_sdk(tmp_path: Path) -> None:
    """A retry of the SDK gets the same error."""
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
def test_a_recorded_broken_stream_breaks_at_the_same_place(capture: str, tmp_path: Path) -> None:
    """The text before it is the same, with and without stored frames."""
    url = new_url(tmp_path)
    frames = [b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'] * 3
    record(Answer(frames=frames, cut_after=2), url, capture=capture)
    received: list[str] = []
    with Replay(url) as replay, client(replay).chat.completions.create(**ASK, stream=True) as stream:
        texts = (chunk.choices[0].delta.content or "" for chunk in stream)
        with pytest.raises(openai.APIConnectionError):
            received.extend(texts)
    assert "".join(received) == "HelHel"


@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_a_recorded_error_event_is_raised_by_the_sdk(capture: str, tmp_path: Path) -> None:
    """This holds for a stream, a complete answer, and without stored frames."""
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


def test_a_cancelled_run_ends_with_a_connection_error(tmp_path: Path) -> None:
    """The SDK raises it at the place where the recorded caller stopped reading."""
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
    """A client could not see that tokens are missing."""
    import sqlite3

    url = record("one two three", tmp_path)
    run_id = recorded(url).run["id"]
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("INSERT INTO gaps VALUES (?, 3, 2, 'no room')", (run_id,))
    connection.close()
    with Replay(url) as replay, pytest.raises(Exception, match=r"lost 2 tokens \(no room\); record it again"):
        client(replay).chat.completions.create(**ASK)


# -- misses ---------------------------------------------------------------------------------------------------------


def test_a_miss_raises_not_recorded_through_the_sdks(tmp_path: Path) -> None:
    """Both SDKs raise it, synchronously and asynchronously, without a retry."""
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


def test_a_request_that_calls_no_model_is_refused(tmp_path: Path) -> None:
    """These are other paths, other methods and invalid bodies."""
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
