"""The loopback provider and its scripts, with real clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import h11
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.testing import (
    Answer,
    FakeClock,
    LoopbackProvider,
    openai_chat_frames,
    openai_completion_body,
    openai_completion_frames,
    openai_error_frame,
    pieces_of,
    scripted,
    song,
    song_pieces,
)
from tests.genuine import Stream

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Sing."}]}


@pytest.fixture
def client() -> Iterator[Any]:
    """Yield a function that makes clients of a provider; all are closed at the end."""
    made: list[openai.OpenAI] = []

    def make(provider: LoopbackProvider, **options: Any) -> openai.OpenAI:
        settings = {"base_url": provider.base_url, "api_key": "any", "max_retries": 0, **options}
        made.append(openai.OpenAI(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def text(stream: Any) -> str:
    """Return the text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def raw(client: openai.OpenAI) -> list[bytes]:
    """Return the body of a streamed answer in the pieces in which it arrived."""
    with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        return list(response.iter_bytes())


def read(client: openai.OpenAI, received: list[str]) -> None:
    """Append the text of a stream to a list, chunk by chunk."""
    for chunk in client.chat.completions.create(**ASK, stream=True):
        received.append(chunk.choices[0].delta.content or "")


def test_without_a_script_the_provider_streams_a_song(client: Any) -> None:
    """The song has about 150 tokens."""
    with LoopbackProvider() as provider:
        assert text(client(provider).chat.completions.create(**ASK, stream=True)) == song()
    assert 140 <= len(song_pieces()) <= 160


def test_an_asynchronous_client_reads_the_same_text() -> None:
    """The provider has an event loop of its own, so that it does not block the client's."""

    async def answer_of(provider: LoopbackProvider) -> str:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream])

    with LoopbackProvider("Bubbles, bubbles!") as provider:
        assert asyncio.run(answer_of(provider)) == "Bubbles, bubbles!"


def test_usage_is_sent_only_if_requested(client: Any) -> None:
    """The last chunk then has no choices, which breaks clients that do not expect it."""
    with LoopbackProvider() as provider:
        create = client(provider).chat.completions.create
        plain = list(create(**ASK, stream=True))
        with_usage = list(create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in plain if chunk.usage] == []
    assert with_usage[-1].choices == []
    assert with_usage[-1].usage.completion_tokens == len(song_pieces())


def test_a_request_without_a_stream_gets_a_complete_answer(client: Any) -> None:
    """The answer is one `chat.completion`."""
    with LoopbackProvider("Hello there!") as provider:
        answer = client(provider).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello there!"
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-4o-mini-2024-07-18", "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_each_choice_has_another_text(client: Any, stream: bool) -> None:
    """A client that mixes choices would show it."""
    with LoopbackProvider() as provider:
        answer = client(provider).chat.completions.create(**ASK, n=2, stream=stream)
        received = ["", ""]
        for chunk in answer if stream else [answer]:
            for choice in chunk.choices:
                received[choice.index] += (choice.delta if stream else choice.message).content or ""
    assert received == [song(0), song(1)]


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, openai.AuthenticationError, "invalid_api_key"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
    ],
)
def test_errors_have_the_form_of_openais_api(client: Any, status: int, error: Any, code: str) -> None:
    """The SDK raises its own error class, with the API's code."""
    with LoopbackProvider(Answer.error(status)) as provider, pytest.raises(error) as raised:
        client(provider).chat.completions.create(**ASK)
    assert raised.value.code == code


def test_an_error_may_have_its_own_message(client: Any) -> None:
    """Message, type and code come from the script."""
    answer = Answer.error(429, "No money left.", "insufficient_quota", "insufficient_quota")
    with LoopbackProvider(answer) as provider, pytest.raises(openai.RateLimitError) as raised:
        client(provider).chat.completions.create(**ASK)
    assert raised.value.body == {
        "message": "No money left.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }


def test_an_error_event_is_raised_by_the_sdk(client: Any) -> None:
    """The text before it is received."""
    frames = [*openai_chat_frames(["Hi"])[:2], openai_error_frame("The model fell over.")]
    received: list[str] = []
    with (
        LoopbackProvider(Answer(frames=frames)) as provider,
        pytest.raises(openai.APIError, match=r"The model fell over\."),
    ):
        read(client(provider), received)
    assert received == ["", "Hi"]


def test_a_cut_stream_arrives_up_to_the_cut(client: Any) -> None:
    """The client gets every frame before the cut, then a connection error."""
    frames = openai_chat_frames(["one", "two", "three"])
    received: list[str] = []
    with (
        LoopbackProvider(Answer(frames=frames, cut_after=3)) as provider,
        pytest.raises(openai.APIConnectionError),
    ):
        read(client(provider), received)
    assert received == ["", "one", "two"]


def test_a_complete_answer_can_be_cut(client: Any) -> None:
    """The head arrives and the body does not."""
    with (
        LoopbackProvider(Answer(body=b"{}", cut_after=0)) as provider,
        pytest.raises(openai.APIConnectionError),
    ):
        client(provider).chat.completions.create(**ASK)


def test_a_hanging_stream_times_out(client: Any) -> None:
    """No frame follows the given ones, and the connection stays open."""
    answer = Answer(frames=openai_chat_frames(["one", "two"]), hang_after=2)
    received: list[str] = []
    with LoopbackProvider(answer) as provider, pytest.raises(openai.APITimeoutError):
        read(client(provider, timeout=0.2), received)
    assert received == ["", "one"]


@pytest.mark.parametrize(("chunks", "longest"), [(1, 1), (7, 7), ([1, 2, 300], 300)])
def test_a_body_can_be_sent_in_pieces_of_any_size(client: Any, chunks: Any, longest: int) -> None:
    """Pieces end inside of events and characters; joined they are the body."""
    frames = openai_chat_frames(["Größe ", "✨", "水"])
    with LoopbackProvider(Answer(frames=frames, chunks=chunks)) as provider:
        pieces = raw(client(provider))
    assert b"".join(pieces) == b"".join(frames)
    assert max(map(len, pieces)) == longest


def test_a_given_body_is_sent_unchanged(client: Any) -> None:
    """With a body and its content type the stream of any provider can be played."""
    body = b": OPENROUTER PROCESSING\r\n\r\n" + b"".join(openai_chat_frames(["Hi"]))
    headers = {"Content-Type": "text/event-stream"}
    with LoopbackProvider(Answer(body=body, headers=headers, chunks=5)) as provider:
        assert b"".join(raw(client(provider))) == body


def test_an_endless_stream_waits_for_its_reader(client: Any) -> None:
    """The provider sends no more than the socket takes, and stops when the client leaves."""
    frame = openai_chat_frames(["la"])[1]
    with LoopbackProvider(Answer(frames=cycle([frame]))) as provider:
        stream = client(provider).chat.completions.create(**ASK, stream=True)
        received = [chunk.choices[0].delta.content for chunk in islice(stream, 3)]
        stream.close()
    assert received == ["la"] * 3
    assert provider.requests[0]["frames_sent"] * len(frame) < 64 * 2**20


def test_frames_are_due_at_the_times_of_the_answer() -> None:
    """An answer has a delay and an interval, or an offset for each frame; a frame without an offset follows at once."""
    frames = [b"a", b"b", b"c"]
    paced = Answer(frames=frames, delay=1.0, interval=0.5)
    recorded = Answer(frames=frames, offsets_us=[250_000, 750_000])
    assert list(paced.timed_frames()) == [(1.0, b"a"), (1.5, b"b"), (2.0, b"c")]
    assert list(recorded.timed_frames()) == [(0.25, b"a"), (0.75, b"b"), (0.75, b"c")]


def test_tokens_per_second_are_not_exceeded(client: Any) -> None:
    """Eleven tokens at 100 a second take at least 0.1 s."""
    with LoopbackProvider.song(tokens_per_second=100, tokens=11) as provider:
        clock = asyncio.new_event_loop()
        began = clock.time()
        received = text(client(provider).chat.completions.create(**ASK, stream=True))
        took = clock.time() - began
        clock.close()
    assert received == "".join(song_pieces(11))
    assert took >= 0.1


def test_requests_are_stored(client: Any) -> None:
    """The provider stores path, lower-case headers, the body, and the number of frames it sent."""
    with LoopbackProvider() as provider:
        text(client(provider).chat.completions.create(**ASK, stream=True))
    [seen] = provider.requests
    assert (seen["method"], seen["path"]) == ("POST", "/v1/chat/completions")
    assert seen["headers"]["authorization"] == "Bearer any"
    assert seen["body"] == {**ASK, "stream": True}
    assert seen["frames_sent"] == len(openai_chat_frames(song_pieces(), usage=False))


def test_a_script_may_be_a_function_of_the_request(client: Any) -> None:
    """It gets the body and the path."""
    with LoopbackProvider(lambda request, path: f"{path}: {request['messages'][0]['content']}") as provider:
        answer = client(provider).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "/v1/chat/completions: Sing."


def test_a_script_may_have_several_answers(client: Any) -> None:
    """They are given in order, which shows a client's retries."""
    busy = Answer.error(429, headers={"retry-after-ms": "1"})
    with LoopbackProvider(scripted(busy, busy, "At last.")) as provider:
        answer = client(provider, max_retries=2).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "At last."
    assert [seen["headers"]["x-stainless-retry-count"] for seen in provider.requests] == ["0", "1", "2"]


def test_an_exception_in_a_script_is_raised(client: Any) -> None:
    """The client gets status 500, and the `with` block raises the script's exception."""

    def script(request: dict[str, Any], path: str) -> str:
        raise LookupError("no verse")

    with (
        pytest.raises(LookupError, match="no verse"),
        LoopbackProvider(script) as provider,
        pytest.raises(openai.InternalServerError, match="no verse"),
    ):
        client(provider).chat.completions.create(**ASK)


def test_a_stopped_provider_leaves_no_thread(client: Any) -> None:
    """This holds even while a client reads a stream."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(["one"]), hang_after=1)) as provider:
        address = provider.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        next(iter(client(provider).chat.completions.create(**ASK, stream=True)))
    assert [each.name for each in threading.enumerate() if each.name == "loopback-provider"] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address[0], int(address[1])))


def test_a_provider_can_be_started_again(client: Any) -> None:
    """It keeps the requests of before."""
    provider = LoopbackProvider("Back.")
    for _ in range(2):
        with provider:
            client(provider).chat.completions.create(**ASK)
    assert len(provider.requests) == 2
    with pytest.raises(RuntimeError, match="not running"):
        _ = provider.base_url


def test_a_port_in_use_is_an_error() -> None:
    """The error names the port."""
    with LoopbackProvider() as provider:
        port = int(provider.base_url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            LoopbackProvider(port=port).start()


def exchange(provider: LoopbackProvider, *requests: bytes) -> list[tuple[int, Any]]:
    """Send raw requests over one connection; return the status and JSON of each answer."""
    host, _, port = provider.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    found = []
    with socket.create_connection((host, int(port)), timeout=5) as link:
        for request in requests:
            http = h11.Connection(h11.CLIENT)
            http.send(
                h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")])
            )
            http.send(h11.EndOfMessage())
            link.sendall(request)
            found.append(answer_on(http, link))
    return found


def answer_on(http: h11.Connection, link: socket.socket) -> tuple[int, Any]:
    """Read one response."""
    status, body = 0, b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            http.receive_data(link.recv(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
    return status, json.loads(body)


def test_one_connection_serves_many_requests() -> None:
    """Unknown paths and methods get the API's errors, and the connection stays open."""
    with LoopbackProvider() as provider:
        answers = exchange(
            provider,
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /v1/songs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        )
    assert [status for status, _ in answers] == [200, 405, 404, 400, 200]
    assert "gpt-4o-mini" in [model["id"] for model in answers[0][1]["data"]]
    assert answers[2][1]["error"]["message"] == "Invalid URL (POST /v1/songs)"


def test_bytes_that_are_not_http_get_status_400() -> None:
    """No traceback is printed."""
    with LoopbackProvider() as provider:
        [(status, _)] = exchange(provider, b"\x16\x03\x01 TLS here\r\n\r\n")
    assert status == 400


def test_made_frames_equal_genuine_ones(streams: list[Stream]) -> None:
    """Every genuine OpenAI stream of text or calls is made again, except for random padding."""
    seen = 0
    for stream in streams:
        if stream.provider != "openai" or b'"moderation"' in stream.body:
            continue
        genuine, made = made_again(stream)
        assert lengths(made) == lengths(genuine), stream.name
        assert [plain(frame) for frame in made] == [plain(frame) for frame in genuine], stream.name
        seen += 1
    assert seen > 10


def made_again(stream: Stream) -> tuple[list[bytes], list[bytes]]:
    """Return a genuine stream's frames, and the frames that we make of its content."""
    genuine = [frame + b"\n\n" for frame in stream.body.split(b"\n\n")[:-1]]
    chunks = [json.loads(frame[6:]) for frame in genuine[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls: list[dict[str, Any]] = []
    for call in [call for delta in deltas for call in delta.get("tool_calls", [])]:
        if "id" in call:
            calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": []})
        else:
            calls[call["index"]]["arguments"].append(call["function"]["arguments"])
    frames = openai_chat_frames(
        [delta["content"] for delta in deltas if delta.get("content")],
        model=chunks[0]["model"],
        id=chunks[0]["id"],
        created=chunks[0]["created"],
        tool_calls=calls,
        finish_reason=chunks[-2]["choices"][0]["finish_reason"],
    )
    return genuine, frames


def lengths(frames: list[bytes]) -> list[int]:
    """Return the length of each frame, except of the one with the token counts."""
    return [len(frame) for frame in frames if b'"usage":{' not in frame]


def plain(frame: bytes) -> bytes:
    """Return a frame without random values and values that only the API knows, with its keys in one order.

    OpenAI's servers put `usage` before or after `choices`, sometimes both in one stream.
    """
    frame = frame.replace(b'"usage":null,"choices"', b'"choices"').replace(b',"usage":null', b"")
    frame = re.sub(rb'"usage":\{"prompt.*\}\}', b'"usage":{}', frame)
    frame = re.sub(rb'"system_fingerprint":"fp_\w{10}"', b'"system_fingerprint":"fp_"', frame)
    return re.sub(rb'"obfuscation":"\w*"', b'"obfuscation":""', frame)


def test_frames_with_the_same_id_have_the_same_bytes() -> None:
    """A failing test can be repeated with the same stream."""
    frames = [openai_chat_frames(["Hi", "!"], id="chatcmpl-1", created=7) for _ in range(2)]
    assert frames[0] == frames[1]


def test_reasoning_comes_before_the_text_in_its_own_field() -> None:
    """The field is DeepSeek's `reasoning_content`."""
    frames = openai_chat_frames(["42"], reasoning=["Let", " me"], usage=False)
    deltas = [json.loads(frame[6:])["choices"][0]["delta"] for frame in frames[:-1]]
    assert [delta.get("reasoning_content") for delta in deltas] == ["", "Let", " me", None, None]
    assert deltas[3]["content"] == "42"


def test_tool_calls_given_as_text_are_streamed_in_pieces(client: Any) -> None:
    """The joined pieces are the arguments."""
    call = {"id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'}
    frames = openai_chat_frames([], tool_calls=[call], usage=False)
    with LoopbackProvider(Answer(frames=frames)) as provider:
        chunks = list(client(provider).chat.completions.create(**ASK, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert "".join(each.function.arguments for each in calls) == '{"city":"Paris"}'
    assert len(calls) > 3
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_lone_surrogate_is_sent_as_a_json_escape() -> None:
    """UTF-8 cannot encode it."""
    frames = openai_chat_frames(["\ud83d", "\x00"])
    deltas = [json.loads(frame[6:])["choices"][0]["delta"] for frame in frames[1:3]]
    assert deltas == [{"content": "\ud83d"}, {"content": "\x00"}]


def test_too_few_lists_of_pieces_are_refused() -> None:
    """The error names the number of lists and of choices."""
    with pytest.raises(ValueError, match="1 lists for n=2"):
        openai_chat_frames([["a"]], n=2)


@given(st.text())
def test_the_pieces_of_a_text_join_to_the_text(written: str) -> None:
    """No piece is empty, whatever the text is."""
    pieces = pieces_of(written)
    assert "".join(pieces) == written
    assert "" not in pieces


def test_a_fake_clock_moves_only_by_advance() -> None:
    """It returns microseconds, is advanced in seconds, and never goes back."""
    clock = FakeClock(5)
    clock.advance(1.5)
    assert (clock(), clock()) == (1_500_005, 1_500_005)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


def test_the_command_serves_until_the_end_of_its_input() -> None:
    """`python -m recorder.testing` prints its URL and exits with code 0."""
    command = [sys.executable, "-m", "recorder.testing", "--tokens", "5", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=url, api_key="any") as client:
            assert text(client.chat.completions.create(**ASK, stream=True)) == "".join(song_pieces(5))
        process.communicate("")
    assert process.returncode == 0


def test_the_command_ends_with_exit_code_0_at_sigterm() -> None:
    """It stops its server in order."""
    command = [sys.executable, "-m", "recorder.testing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


# -- legacy completions and Azure ------------------------------------------------------------------------------


def test_legacy_completions_are_answered(client: Any) -> None:
    """Streams and complete answers have the same text, and usage is sent only if requested."""
    with LoopbackProvider.song() as provider:
        completions = client(provider).completions
        ask: dict[str, Any] = {"model": "gpt-3.5-turbo-instruct", "prompt": "Sing."}
        streamed = list(completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        complete = completions.create(**ask)
        bare = list(completions.create(**ask, stream=True))
    assert (
        "".join(chunk.choices[0].text for chunk in streamed if chunk.choices)
        == complete.choices[0].text
        == song()
    )
    assert streamed[-1].usage == complete.usage
    assert streamed[-2].choices[0].finish_reason == complete.choices[0].finish_reason == "stop"
    assert all(chunk.choices and chunk.usage is None for chunk in bare)


def test_each_prompt_has_its_own_choices(client: Any) -> None:
    """Choices are numbered across prompts; a list of numbers is one prompt of tokens."""
    with LoopbackProvider() as provider:
        create = client(provider).completions.create
        several = create(model="m", prompt=["Sing.", "Sing again."], n=2)
        tokens = create(model="m", prompt=[1, 2, 3])
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in several.choices}) == 4
    assert (len(tokens.choices), tokens.usage.prompt_tokens) == (1, 3)


def test_log_probabilities_are_sent_with_their_offsets(client: Any) -> None:
    """Each token has one, and its offset in the text; the values are invented."""
    with LoopbackProvider("Hello there!") as provider:
        create = client(provider).completions.create
        complete = create(model="m", prompt="Hi", logprobs=2).choices[0].logprobs
        streamed = list(create(model="m", prompt="Hi", logprobs=2, stream=True))
    assert (complete.tokens, complete.text_offset) == (["Hello", " there", "!"], [0, 5, 11])
    pieces = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices[0].logprobs]
    assert [piece.text_offset for piece in pieces] == [[0], [5], [11]]
    assert [piece.token_logprobs[0] for piece in pieces] == complete.token_logprobs


def test_the_same_arguments_give_the_same_completion() -> None:
    """Frames and bodies with the same id and time are the same."""
    made: dict[str, Any] = {"id": "cmpl-1", "created": 1, "logprobs": 1}
    assert openai_completion_frames(["a", "b"], **made) == openai_completion_frames(["a", "b"], **made)
    assert openai_completion_body(["a"], **made) == openai_completion_body(["a"], **made)


def test_azures_clients_are_answered_as_by_azure() -> None:
    """The paths are those of a deployment, and the first chunk has the content filters of the prompt."""
    with (
        LoopbackProvider() as provider,
        openai.AzureOpenAI(
            azure_endpoint=provider.url, azure_deployment="my-gpt", api_version="2024-10-21", api_key="any"
        ) as azure,
    ):
        first, *chunks = azure.chat.completions.create(**ASK, stream=True)
        assert azure.completions.create(model="m", prompt="Sing.").choices[0].text == song()
    assert (first.id, first.choices) == ("", [])
    assert first.model_extra["prompt_filter_results"][0]["prompt_index"] == 0
    assert text(chunks) == song()
    assert [request["path"].partition("?")[0] for request in provider.requests] == [
        "/openai/deployments/my-gpt/chat/completions", "/openai/deployments/my-gpt/completions"
    ]  # fmt: skip
