"""The loopback provider and its scripts, seen by genuine clients over real sockets."""

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
    """Makes clients of a provider, and closes them."""
    made: list[openai.OpenAI] = []

    def make(provider: LoopbackProvider, **options: Any) -> openai.OpenAI:
        settings = {"base_url": provider.base_url, "api_key": "any", "max_retries": 0, **options}
        made.append(openai.OpenAI(**settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def text(stream: Any) -> str:
    """What a stream says."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def raw(client: openai.OpenAI) -> list[bytes]:
    """The body of a streamed answer in the pieces that came."""
    with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        return list(response.iter_bytes())


def read(client: openai.OpenAI, received: list[str]) -> None:
    """Append what a stream says, piece by piece, as far as it comes."""
    for chunk in client.chat.completions.create(**ASK, stream=True):
        received.append(chunk.choices[0].delta.content or "")


def test_without_a_script_it_sings(client: Any) -> None:
    """The official client reads the song, about 150 tokens of it."""
    with LoopbackProvider() as provider:
        assert text(client(provider).chat.completions.create(**ASK, stream=True)) == song()
    assert 140 <= len(song_pieces()) <= 160


def test_an_asynchronous_client_reads_the_same() -> None:
    """The provider lives on its own loop, so the caller's loop is free for the client."""

    async def sung(provider: LoopbackProvider) -> str:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream])

    with LoopbackProvider("Bubbles, bubbles!") as provider:
        assert asyncio.run(sung(provider)) == "Bubbles, bubbles!"


def test_usage_comes_only_when_asked_for(client: Any) -> None:
    """The usage chunk breaks naive loops, so the API sends it on request only."""
    with LoopbackProvider() as provider:
        create = client(provider).chat.completions.create
        plain = list(create(**ASK, stream=True))
        with_usage = list(create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in plain if chunk.usage] == []
    assert with_usage[-1].choices == []
    assert with_usage[-1].usage.completion_tokens == len(song_pieces())


def test_a_whole_answer_says_the_same_as_a_streamed_one(client: Any) -> None:
    """stream=False gets one chat.completion."""
    with LoopbackProvider("Hello there!") as provider:
        answer = client(provider).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello there!"
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-4o-mini-2024-07-18", "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_each_choice_sings_from_another_verse(client: Any, stream: bool) -> None:
    """Choices that differ show whoever mixes them up."""
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
def test_errors_are_worded_as_the_api_does(client: Any, status: int, error: Any, code: str) -> None:
    """The client raises its own error class, with the code the API gives."""
    with LoopbackProvider(Answer.error(status)) as provider, pytest.raises(error) as raised:
        client(provider).chat.completions.create(**ASK)
    assert raised.value.code == code


def test_an_error_of_ones_own_words(client: Any) -> None:
    """Message, type and code are what the script says."""
    answer = Answer.error(429, "No money left.", "insufficient_quota", "insufficient_quota")
    with LoopbackProvider(answer) as provider, pytest.raises(openai.RateLimitError) as raised:
        client(provider).chat.completions.create(**ASK)
    assert raised.value.body == {
        "message": "No money left.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }


def test_an_error_inside_a_stream(client: Any) -> None:
    """What came before it is read, then the client raises."""
    frames = [*openai_chat_frames(["Hi"])[:2], openai_error_frame("The model fell over.")]
    received: list[str] = []
    with (
        LoopbackProvider(Answer(frames=frames)) as provider,
        pytest.raises(openai.APIError, match=r"The model fell over\."),
    ):
        read(client(provider), received)
    assert received == ["", "Hi"]


def test_a_cut_stream_arrives_up_to_the_cut(client: Any) -> None:
    """Every frame before the cut is there, and the end is not taken for a whole answer."""
    frames = openai_chat_frames(["one", "two", "three"])
    received: list[str] = []
    with (
        LoopbackProvider(Answer(frames=frames, cut_after=3)) as provider,
        pytest.raises(openai.APIConnectionError),
    ):
        read(client(provider), received)
    assert received == ["", "one", "two"]


def test_a_whole_answer_can_be_cut_too(client: Any) -> None:
    """The head arrives and the body does not."""
    with (
        LoopbackProvider(Answer(body=b"{}", cut_after=0)) as provider,
        pytest.raises(openai.APIConnectionError),
    ):
        client(provider).chat.completions.create(**ASK)


def test_a_hanging_stream_times_out(client: Any) -> None:
    """Nothing comes after the given frames, and the connection stays open."""
    answer = Answer(frames=openai_chat_frames(["one", "two"]), hang_after=2)
    received: list[str] = []
    with LoopbackProvider(answer) as provider, pytest.raises(openai.APITimeoutError):
        read(client(provider, timeout=0.2), received)
    assert received == ["", "one"]


@pytest.mark.parametrize(("chunks", "longest"), [(1, 1), (7, 7), ([1, 2, 300], 300)])
def test_bytes_are_cut_anywhere(client: Any, chunks: Any, longest: int) -> None:
    """Pieces end in the middle of events and characters; joined they are the body."""
    frames = openai_chat_frames(["Größe ", "✨", "水"])
    with LoopbackProvider(Answer(frames=frames, chunks=chunks)) as provider:
        pieces = raw(client(provider))
    assert b"".join(pieces) == b"".join(frames)
    assert max(map(len, pieces)) == longest


def test_a_recorded_body_is_sent_as_it_is(client: Any) -> None:
    """A body and its content type are enough to play any provider's stream."""
    body = b": OPENROUTER PROCESSING\r\n\r\n" + b"".join(openai_chat_frames(["Hi"]))
    headers = {"Content-Type": "text/event-stream"}
    with LoopbackProvider(Answer(body=body, headers=headers, chunks=5)) as provider:
        assert b"".join(raw(client(provider))) == body


def test_an_endless_stream_waits_for_its_reader(client: Any) -> None:
    """The provider sends no more than the socket takes, and ends when the client leaves."""
    frame = openai_chat_frames(["la"])[1]
    with LoopbackProvider(Answer(frames=cycle([frame]))) as provider:
        stream = client(provider).chat.completions.create(**ASK, stream=True)
        received = [chunk.choices[0].delta.content for chunk in islice(stream, 3)]
        stream.close()
    assert received == ["la"] * 3
    assert provider.requests[0]["frames_sent"] * len(frame) < 64 * 2**20


def test_frames_are_due_when_the_answer_says() -> None:
    """Delay and interval, or an offset for each; what has none left follows at once."""
    frames = [b"a", b"b", b"c"]
    paced = Answer(frames=frames, delay=1.0, interval=0.5)
    recorded = Answer(frames=frames, offsets_us=[250_000, 750_000])
    assert list(paced.timed_frames()) == [(1.0, b"a"), (1.5, b"b"), (2.0, b"c")]
    assert list(recorded.timed_frames()) == [(0.25, b"a"), (0.75, b"b"), (0.75, b"c")]


def test_a_paced_song_takes_its_time(client: Any) -> None:
    """Tokens a second are kept on a real socket: never faster."""
    with LoopbackProvider.song(tokens_per_second=100, tokens=11) as provider:
        clock = asyncio.new_event_loop()
        began = clock.time()
        received = text(client(provider).chat.completions.create(**ASK, stream=True))
        took = clock.time() - began
        clock.close()
    assert received == "".join(song_pieces(11))
    assert took >= 0.1


def test_requests_are_kept(client: Any) -> None:
    """Path, headers in lower case, the body's JSON, and how much of the answer was sent."""
    with LoopbackProvider() as provider:
        text(client(provider).chat.completions.create(**ASK, stream=True))
    [seen] = provider.requests
    assert (seen["method"], seen["path"]) == ("POST", "/v1/chat/completions")
    assert seen["headers"]["authorization"] == "Bearer any"
    assert seen["body"] == {**ASK, "stream": True}
    assert seen["frames_sent"] == len(openai_chat_frames(song_pieces(), usage=False))


def test_a_script_answers_by_the_request(client: Any) -> None:
    """A function gets the body and the path."""
    with LoopbackProvider(lambda request, path: f"{path}: {request['messages'][0]['content']}") as provider:
        answer = client(provider).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "/v1/chat/completions: Sing."


def test_an_error_first_and_then_an_answer(client: Any) -> None:
    """A script of several answers shows a client's retries."""
    busy = Answer.error(429, headers={"retry-after-ms": "1"})
    with LoopbackProvider(scripted(busy, busy, "At last.")) as provider:
        answer = client(provider, max_retries=2).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "At last."
    assert [seen["headers"]["x-stainless-retry-count"] for seen in provider.requests] == ["0", "1", "2"]


def test_a_failing_script_is_not_swallowed(client: Any) -> None:
    """The client sees a 500, and the with-block raises what the script raised."""

    def script(request: dict[str, Any], path: str) -> str:
        raise LookupError("no verse")

    with (
        pytest.raises(LookupError, match="no verse"),
        LoopbackProvider(script) as provider,
        pytest.raises(openai.InternalServerError, match="no verse"),
    ):
        client(provider).chat.completions.create(**ASK)


def test_it_stops_completely(client: Any) -> None:
    """After the with-block no thread is left, even with a client in the middle of a stream."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(["one"]), hang_after=1)) as provider:
        address = provider.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        next(iter(client(provider).chat.completions.create(**ASK, stream=True)))
    assert [each.name for each in threading.enumerate() if each.name == "loopback-provider"] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address[0], int(address[1])))


def test_it_starts_again(client: Any) -> None:
    """A provider that comes back listens anew and remembers what it was asked."""
    provider = LoopbackProvider("Back.")
    for _ in range(2):
        with provider:
            client(provider).chat.completions.create(**ASK)
    assert len(provider.requests) == 2
    with pytest.raises(RuntimeError, match="not running"):
        _ = provider.base_url


def test_a_port_that_is_taken_is_an_error() -> None:
    """Two providers cannot share a port."""
    with LoopbackProvider() as provider:
        port = int(provider.base_url.removesuffix("/v1").rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            LoopbackProvider(port=port).start()


def exchange(provider: LoopbackProvider, *requests: bytes) -> list[tuple[int, Any]]:
    """Raw requests over one connection; the status and JSON of each answer."""
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
    """One response."""
    status, body = 0, b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            http.receive_data(link.recv(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
    return status, json.loads(body)


def test_one_connection_takes_many_requests_of_every_kind() -> None:
    """Models are listed; what the API has not is refused in its words; the connection lives on."""
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


def test_what_is_no_http_is_refused() -> None:
    """A client that speaks something else gets a 400 and no traceback."""
    with LoopbackProvider() as provider:
        [(status, _)] = exchange(provider, b"\x16\x03\x01 TLS here\r\n\r\n")
    assert status == 400


def test_frames_are_byte_for_byte_those_of_the_api(streams: list[Stream]) -> None:
    """Every genuine OpenAI stream of text or of calls comes out again, but for the random padding."""
    seen = 0
    for stream in streams:
        if stream.provider != "openai" or b'"moderation"' in stream.body:
            continue
        genuine, spoken = spoken_again(stream)
        assert lengths(spoken) == lengths(genuine), stream.name
        assert [plain(frame) for frame in spoken] == [plain(frame) for frame in genuine], stream.name
        seen += 1
    assert seen > 10


def spoken_again(stream: Stream) -> tuple[list[bytes], list[bytes]]:
    """A genuine stream's frames, and those of our encoder told what it says."""
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
    """How long each frame is, but the one with the token counts."""
    return [len(frame) for frame in frames if b'"usage":{' not in frame]


def plain(frame: bytes) -> bytes:
    """A frame without what is random or only known to the API, its keys in one order.

    OpenAI's servers put `usage` before or after `choices`, some in one and the same stream.
    """
    frame = frame.replace(b'"usage":null,"choices"', b'"choices"').replace(b',"usage":null', b"")
    frame = re.sub(rb'"usage":\{"prompt.*\}\}', b'"usage":{}', frame)
    frame = re.sub(rb'"system_fingerprint":"fp_\w{10}"', b'"system_fingerprint":"fp_"', frame)
    return re.sub(rb'"obfuscation":"\w*"', b'"obfuscation":""', frame)


def test_the_same_id_gives_the_same_bytes() -> None:
    """A failing test can be run again with the very same stream."""
    frames = [openai_chat_frames(["Hi", "!"], id="chatcmpl-1", created=7) for _ in range(2)]
    assert frames[0] == frames[1]


def test_reasoning_comes_first_and_in_its_own_field() -> None:
    """Thoughts speak DeepSeek's dialect."""
    frames = openai_chat_frames(["42"], reasoning=["Let", " me"], usage=False)
    deltas = [json.loads(frame[6:])["choices"][0]["delta"] for frame in frames[:-1]]
    assert [delta.get("reasoning_content") for delta in deltas] == ["", "Let", " me", None, None]
    assert deltas[3]["content"] == "42"


def test_tool_calls_of_both_kinds_of_answer(client: Any) -> None:
    """Calls given as strings are cut into pieces; streamed and whole agree."""
    call = {"id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'}
    frames = openai_chat_frames([], tool_calls=[call], usage=False)
    with LoopbackProvider(Answer(frames=frames)) as provider:
        chunks = list(client(provider).chat.completions.create(**ASK, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert "".join(each.function.arguments for each in calls) == '{"city":"Paris"}'
    assert len(calls) > 3
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_half_a_character_is_escaped() -> None:
    """A lone surrogate, which UTF-8 cannot say, still goes over the wire as JSON can say it."""
    frames = openai_chat_frames(["\ud83d", "\x00"])
    deltas = [json.loads(frame[6:])["choices"][0]["delta"] for frame in frames[1:3]]
    assert deltas == [{"content": "\ud83d"}, {"content": "\x00"}]


def test_lists_of_pieces_must_match_the_choices() -> None:
    """One list too few is an error that says how many there are."""
    with pytest.raises(ValueError, match="1 lists for n=2"):
        openai_chat_frames([["a"]], n=2)


@given(st.text())
def test_pieces_join_to_the_text(written: str) -> None:
    """Cutting into word pieces loses nothing, whatever the script."""
    pieces = pieces_of(written)
    assert "".join(pieces) == written
    assert "" not in pieces


def test_the_clock_moves_only_when_told() -> None:
    """Microseconds out, seconds in, never back."""
    clock = FakeClock(5)
    clock.advance(1.5)
    assert (clock(), clock()) == (1_500_005, 1_500_005)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)


def test_the_command_serves_until_input_ends() -> None:
    """python -m recorder.testing prints its URL, sings at the given length, and ends in order."""
    command = [sys.executable, "-m", "recorder.testing", "--tokens", "5", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=url, api_key="any") as client:
            assert text(client.chat.completions.create(**ASK, stream=True)) == "".join(song_pieces(5))
        process.communicate("")
    assert process.returncode == 0


def test_the_command_ends_at_a_signal() -> None:
    """Ctrl-C and SIGTERM are an orderly end."""
    command = [sys.executable, "-m", "recorder.testing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


# -- legacy completions and Azure ------------------------------------------------------------------------------


def test_completions_are_answered_as_well(client: Any) -> None:
    """The song again, streamed and whole, and the usage as it is asked for."""
    with LoopbackProvider.song() as provider:
        completions = client(provider).completions
        ask: dict[str, Any] = {"model": "gpt-3.5-turbo-instruct", "prompt": "Sing."}
        streamed = list(completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        whole = completions.create(**ask)
        bare = list(completions.create(**ask, stream=True))
    assert (
        "".join(chunk.choices[0].text for chunk in streamed if chunk.choices)
        == whole.choices[0].text
        == song()
    )
    assert streamed[-1].usage == whole.usage
    assert streamed[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert all(chunk.choices and chunk.usage is None for chunk in bare)


def test_each_prompt_has_its_choices(client: Any) -> None:
    """Two of each, numbered through; a list of numbers is one prompt, of tokens."""
    with LoopbackProvider() as provider:
        create = client(provider).completions.create
        several = create(model="m", prompt=["Sing.", "Sing again."], n=2)
        tokens = create(model="m", prompt=[1, 2, 3])
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in several.choices}) == 4
    assert (len(tokens.choices), tokens.usage.prompt_tokens) == (1, 3)


def test_log_probabilities_are_made_up_and_in_place(client: Any) -> None:
    """A token each, and where it stands in the text."""
    with LoopbackProvider("Hello there!") as provider:
        create = client(provider).completions.create
        whole = create(model="m", prompt="Hi", logprobs=2).choices[0].logprobs
        streamed = list(create(model="m", prompt="Hi", logprobs=2, stream=True))
    assert (whole.tokens, whole.text_offset) == (["Hello", " there", "!"], [0, 5, 11])
    pieces = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices[0].logprobs]
    assert [piece.text_offset for piece in pieces] == [[0], [5], [11]]
    assert [piece.token_logprobs[0] for piece in pieces] == whole.token_logprobs


def test_the_same_arguments_give_the_same_completion() -> None:
    """With the same id and time."""
    made: dict[str, Any] = {"id": "cmpl-1", "created": 1, "logprobs": 1}
    assert openai_completion_frames(["a", "b"], **made) == openai_completion_frames(["a", "b"], **made)
    assert openai_completion_body(["a"], **made) == openai_completion_body(["a"], **made)


def test_azure_s_clients_are_answered_as_by_azure() -> None:
    """At the path of a deployment, with what the filters say first."""
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
