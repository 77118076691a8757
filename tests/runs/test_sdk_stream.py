"""The end of a response: a terminator, an error, a broken connection, or a caller that stops reading."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import anyio
import httpx2
import openai
import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.models import ChatOpenAI
from recorder.runs.sdk_stream import read
from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_chat_body,
    openai_chat_frames,
    openai_error_frame,
    scripted,
)
from recorder.wire.reply import Reply
from tests.chatting import (
    ASK,
    CALL_STYLES,
    CallStyle,
    CountingProvider,
    Log,
    cancelled_at,
    chat,
    event,
    history_at,
    name_of,
    recorded,
    runs,
    sdk,
)
from tests.genuine import Stream

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

FRAMES = openai_chat_frames(["Hello", " there", "!"])
DONE = FRAMES[-1]


def text(chunks: list[Any]) -> str:
    """Return the text of the chunks."""
    return "".join(chunk.content for chunk in chunks)


def by_the_sdk(provider: LoopbackProvider, **options: Any) -> Exception:
    """Return the exception that the bare SDK raises on the same stream."""
    client = sdk(provider, **options)
    with pytest.raises((openai.OpenAIError, httpx2.TransportError)) as caught:
        list(client.chat.completions.create(**ASK, stream_options={"include_usage": True}))
    return caught.value


def assert_alike(ours: BaseException, theirs: BaseException) -> None:
    """Assert that both errors have the same class, message, body and request."""
    if isinstance(theirs, httpx2.TransportError):
        return  # openai before 3.14 raises the HTTP client's errors unchanged while a stream is read
    assert type(ours) is type(theirs)
    # Older SDKs have this message for an error that is not an object; newer ones read its text, as we do.
    assert str(theirs) in (str(ours), "An error occurred during streaming")
    for name in ("body", "code", "param", "type", "status_code"):
        assert getattr(ours, name, None) == getattr(theirs, name, None)
    if isinstance(ours, openai.APIError) and isinstance(theirs, openai.APIError):
        assert (ours.request.method, ours.request.url) == (theirs.request.method, theirs.request.url)
        assert ours.request.content == theirs.request.content


# -- at the terminator -----------------------------------------------------------------------------------------


@both
def test_bytes_after_the_terminator_are_stored(style: CallStyle, tmp_path: Path) -> None:
    """The joined frames equal the body, and nothing after `[DONE]` belongs to the answer."""
    trailing = [b": bye\n\n", event("late"), openai_error_frame("late"), b"half a li"]
    with LoopbackProvider(Answer(frames=[*FRAMES, *trailing])) as provider, history_at(tmp_path) as history:
        chunks = style.stream(chat(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert text(chunks) == found.text == "Hello there!"
    assert found.body == b"".join([*FRAMES, *trailing])
    assert found.run["status"] == "complete"


@both
def test_delayed_bytes_after_the_terminator_are_stored(style: CallStyle, tmp_path: Path) -> None:
    """The model waits for the end of the body, so that the connection can be reused."""
    frames = [*FRAMES, b": bye\n\n"]
    answer = Answer(frames=frames, offsets_us=[0] * len(FRAMES) + [20_000])
    with CountingProvider(answer) as provider, history_at(tmp_path) as history:
        model = chat(provider, callbacks=[history])
        assert text(style.stream(model, "Hi")) == "Hello there!"
        if style.name == "plain":
            assert text(style.stream(model, "Hi")) == "Hello there!"
    for run in runs(history.recorder.url):
        assert recorded(history.recorder.url, run["id"]).body == b"".join(frames)
    assert provider.connections == 1


@both
def test_a_stream_ends_at_the_terminator_when_the_connection_stays_open(
    style: CallStyle, tmp_path: Path
) -> None:
    """Such a connection is not reused."""
    answer = Answer(frames=[*FRAMES, b": bye\n\n", b""], hang_after=len(FRAMES) + 1)
    with CountingProvider(answer) as provider, history_at(tmp_path) as history:
        model = chat(provider, callbacks=[history])
        assert text(style.stream(model, "Hi")) == "Hello there!"
        assert text(style.stream(model, "Hi")) == "Hello there!"
    for run in runs(history.recorder.url):
        assert run["status"] == "complete"
        assert recorded(history.recorder.url, run["id"]).body == b"".join([*FRAMES, b": bye\n\n"])
    assert provider.connections == 2


@both
def test_endless_bytes_after_the_terminator_are_read_for_a_limited_time(style: CallStyle) -> None:
    """The limit is `DRAIN` seconds."""

    def for_ever() -> Any:
        yield from FRAMES
        while True:
            yield b": still there\n\n"

    with LoopbackProvider(lambda body, path: Answer(frames=for_ever(), interval=0.0001)) as provider:
        assert text(style.stream(chat(provider), "Hi")) == "Hello there!"


@both
def test_a_broken_connection_after_the_terminator_raises_no_error(style: CallStyle, tmp_path: Path) -> None:
    """The run is complete."""
    answer = Answer(frames=[*FRAMES, b": bye\n\n"], cut_after=len(FRAMES))
    with LoopbackProvider(answer) as provider, history_at(tmp_path) as history:
        assert text(style.stream(chat(provider, callbacks=[history]), "Hi")) == "Hello there!"
    assert recorded(history.recorder.url).run["status"] == "complete"


def test_bytes_after_the_terminator_are_not_read_without_a_socket() -> None:
    """In-memory clients and HTTP/2, whose streams share a connection, stop at the terminator."""
    read: list[bytes] = []

    def body() -> Any:
        for frame in [*FRAMES, b": bye\n\n", b": bye\n\n"]:
            read.append(frame)
            yield frame

    def answer(request: Any) -> Any:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http, LoopbackProvider() as provider:
        assert text(list(chat(provider, http_client=http).stream("Hi"))) == "Hello there!"
    assert read == FRAMES


def test_a_stream_ends_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """During the shutdown of Python the connection is closed instead of read to its end."""

    def refuse(timer: Any) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    with CountingProvider(Answer(frames=FRAMES)) as provider:
        model = chat(provider)
        monkeypatch.setattr(threading.Timer, "start", refuse)
        assert text(list(model.stream("Hi"))) == "Hello there!"
        assert text(list(model.stream("Hi"))) == "Hello there!"
    assert provider.connections == 2


@both
@pytest.mark.parametrize("terminated", [False, True], ids=["cut", "done"])
def test_a_stream_without_a_finish_reason_and_terminator_is_interrupted(
    style: CallStyle, terminated: bool, tmp_path: Path
) -> None:
    """For the caller the stream ends normally."""
    frames = [*FRAMES[:4], *([DONE] if terminated else [])]
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        chunks = style.stream(chat(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert text(chunks) == found.text == "Hello there!"
    assert found.run["status"] == ("complete" if terminated else "interrupted")
    assert found.transcript == [("user", "Hi"), ("assistant", "Hello there!")]


@both
def test_a_finish_reason_without_a_terminator_is_complete(style: CallStyle, tmp_path: Path) -> None:
    """Some providers leave out `[DONE]`, some the last blank line."""
    frames = [*FRAMES[:5], b"data: [DONE]"]
    for number, answer in enumerate((Answer(frames=frames), Answer(frames=frames[:-1]))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with LoopbackProvider(answer) as provider, history_at(folder) as history:
            style.stream(chat(provider, callbacks=[history]), "Hi")
        assert recorded(history.recorder.url).run["status"] == "complete"


@both
def test_an_empty_stream_gives_an_empty_answer(style: CallStyle, tmp_path: Path) -> None:
    """The run is stored as interrupted."""
    with LoopbackProvider(Answer(frames=[])) as provider, history_at(tmp_path) as history:
        assert text(style.stream(chat(provider, callbacks=[history]), "Hi")) == ""
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.body, found.text) == ("interrupted", b"", "")


@both
def test_an_event_that_is_not_json_is_stored(style: CallStyle, tmp_path: Path) -> None:
    """It is stored with the kind `other`, and the stream continues. The bare SDK raises an error."""
    frames = [*FRAMES[:2], b'data: {"choices": [\n\n', b"data: \xff\xfe\n\n", b": comment\n\n", *FRAMES[2:]]
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        chunks = style.stream(chat(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert text(chunks) == "Hello there!"
    assert found.body == b"".join(frames)
    assert found.transcript[-1] == ("assistant", "Hello there!")
    assert "undecodable" in found.tokens.texts[1]


@both
def test_a_complete_response_to_a_stream_request_is_read(style: CallStyle, tmp_path: Path) -> None:
    """Some proxies do not stream. The bare SDK yields nothing then."""
    body = openai_chat_body(["Hello", " there!"])
    with LoopbackProvider(Answer(body=body)) as provider, history_at(tmp_path) as history:
        assert text(style.stream(chat(provider, callbacks=[history]), "Hi")) == "Hello there!"
    found = recorded(history.recorder.url)
    assert (found.text, found.body, found.run["status"]) == ("Hello there!", body, "complete")


@both
def test_an_answer_that_was_not_streamed_is_one_frame(style: CallStyle, tmp_path: Path) -> None:
    """It is one frame and one token, and the run's row has the usage."""
    body = openai_chat_body(["Hello", " there!"])
    with LoopbackProvider(Answer(body=body)) as provider, history_at(tmp_path) as history:
        style.invoke(chat(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert (found.body, found.tokens.texts) == (body, {0: "Hello there!"})
    assert found.tokens.sha256 == found.tokens.found_sha256
    assert (found.run["output_tokens"], found.run["usage_source"]) == (2, "provider")
    assert (found.run["finish_reason"], found.run["response_model"]) == ("stop", "gpt-4o-mini-2024-07-18")


# -- errors ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("way", ["stream", "invoke"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (404, "NotFoundError"), (429, "RateLimitError"),
     (500, "InternalServerError"), (503, "InternalServerError")],
)  # fmt: skip
def test_http_errors_equal_those_of_the_bare_sdk(
    style: CallStyle, way: str, status: int, kind: str, tmp_path: Path
) -> None:
    """Class, message and body are the same, and the run's row has class and message."""
    with LoopbackProvider(Answer.error(status)) as provider, history_at(tmp_path) as history:
        expected = by_the_sdk(provider)
        with pytest.raises(openai.APIStatusError) as caught:
            getattr(style, way)(chat(provider, callbacks=[history]), "Hi")
    if way == "stream":
        assert_alike(caught.value, expected)
    assert type(caught.value).__name__ == kind
    run = recorded(history.recorder.url).run
    assert (run["status"], run["error_type"]) == ("error", f"openai.{kind}")
    assert run["error_message"] == str(expected)


@both
@pytest.mark.parametrize("way", ["stream", "invoke"])
def test_retries_of_the_sdk_are_one_run(style: CallStyle, way: str, tmp_path: Path) -> None:
    """Two failed requests and an answer are stored as one complete run."""
    later = {"retry-after-ms": "1"}
    answers = scripted(Answer.error(500, headers=later), Answer.error(429, headers=later), "Hello")
    with LoopbackProvider(answers) as provider, history_at(tmp_path) as history:
        getattr(style, way)(chat(provider, callbacks=[history], max_retries=2), "Hi")
    assert len(provider.requests) == 3
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("complete", "Hello")


@both
def test_a_broken_response_without_a_stream_is_retried(style: CallStyle) -> None:
    """The SDK retries, too, if nothing was streamed."""
    body = openai_chat_body(["Hello"])
    broken = Answer(frames=[body[:50], body[50:]], cut_after=1, headers={"content-type": "application/json"})
    with LoopbackProvider(scripted(broken, Answer(body=body))) as provider:
        assert style.invoke(chat(provider, max_retries=1), "Hi").content == "Hello"
        assert len(provider.requests) == 2


@both
@pytest.mark.parametrize(
    "error",
    [
        openai_error_frame("The server had an error", "server_error", "oops"),
        b'data: {"error": {"message": "", "code": 502}}\n\n',
        b'data: {"error": {"code": 502, "param": "x"}}\n\n',
        b'data: {"error": "just text"}\n\n',
        b'data: {"error": ["a", "list"]}\n\n',
        b'event: error\ndata: {"error": {"message": "named"}}\n\n',
        event("with text", error={"message": "beside choices", "code": 429}),
    ],
    ids=["openai", "empty message", "no message", "text", "list", "named event", "beside choices"],
)
def test_an_error_event_raises_the_same_error_as_the_bare_sdk(
    style: CallStyle, error: bytes, tmp_path: Path
) -> None:
    """Class, message, body and request are the same, and the partial answer is stored."""
    log, frames = Log(), [*FRAMES[:3], error, *FRAMES[3:]]
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        expected = by_the_sdk(provider)
        with pytest.raises(openai.APIError) as caught:
            style.stream(chat(provider, callbacks=[history, log]), "Hi")
    assert_alike(caught.value, expected)
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.run["error_type"]) == ("error", "openai.APIError")
    assert found.run["error_message"] == str(caught.value)
    assert found.transcript[-1][1].startswith("Hello there")
    assert found.body == b"".join(frames[:4])
    (((failure,), kwargs),) = log.calls_of("on_llm_error")
    assert failure is caught.value
    assert kwargs["response"].generations[0][0].text.startswith("Hello there")
    assert log.names[-1] == "llm_error"


@both
def test_genuine_error_events_raise_the_same_error_as_the_bare_sdk(
    style: CallStyle, streams: list[Stream]
) -> None:
    """The errors come from recorded streams of real providers."""
    failed = [stream for stream in streams if stream.status == 200 and b'"error":' in stream.body]
    assert failed
    for stream in failed:
        with LoopbackProvider(Answer(frames=[stream.body], chunks=100)) as provider:
            expected = by_the_sdk(provider)
            with pytest.raises(openai.APIError) as caught:
                style.stream(chat(provider), "Hi")
        assert_alike(caught.value, expected)


@both
def test_an_error_in_a_complete_response_with_status_200_is_raised(style: CallStyle) -> None:
    """Some providers send errors with status 200."""
    body = b'{"error": {"message": "Upstream is down", "code": 502}}'
    with LoopbackProvider(Answer(body=body)) as provider:
        for ask in (style.invoke, style.stream):
            with pytest.raises(openai.APIError, match="Upstream is down") as caught:
                ask(chat(provider), "Hi")
            assert caught.value.body == {"message": "Upstream is down", "code": 502}


@both
def test_a_cut_connection_raises_a_connection_error(style: CallStyle, tmp_path: Path) -> None:
    """Its cause is the HTTP client's error, and all received bytes are stored."""
    frames = [*FRAMES[:3], FRAMES[3][:20], FRAMES[3][20:]]
    with LoopbackProvider(Answer(frames=frames, cut_after=4)) as provider, history_at(tmp_path) as history:
        expected = by_the_sdk(provider)
        with pytest.raises(openai.APIConnectionError) as caught:
            style.stream(chat(provider, callbacks=[history]), "Hi")
    assert_alike(caught.value, expected)
    assert isinstance(caught.value.__cause__, httpx2.TransportError)
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.run["error_type"]) == ("error", "openai.APIConnectionError")
    assert found.text == "Hello there"
    assert found.body == b"".join(frames[:4])


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """Yield the address of a server that sends this response to each client and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(response)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@both
@pytest.mark.parametrize("way", ["stream", "invoke"])
@pytest.mark.parametrize(
    ("scheme", "response"),
    [("http", b""), ("http", b"Who are you?\r\n\r\n"), ("https", b"Who are you?\r\n\r\n")],
    ids=["closes", "no HTTP", "no TLS"],
)
def test_a_response_that_is_not_http_raises_a_connection_error(
    style: CallStyle, way: str, scheme: str, response: bytes, tmp_path: Path
) -> None:
    """The error equals that of the bare SDK, and the run is stored."""
    with answering(response) as address, history_at(tmp_path) as history:
        where: Any = {"base_url": f"{scheme}://{address}", "api_key": "any", "max_retries": 0}
        model = ChatOpenAI("gpt-4o", **where)
        with openai.OpenAI(**where) as client, pytest.raises(openai.APIConnectionError) as expected:
            client.chat.completions.create(**ASK)
        with pytest.raises(openai.APIConnectionError) as caught:
            getattr(style, way)(model, "Hi", {"callbacks": [history]})
    assert type(caught.value) is type(expected.value) is openai.APIConnectionError
    assert str(caught.value) == str(expected.value)
    assert isinstance(caught.value.__cause__, httpx2.TransportError)
    run = recorded(history.recorder.url).run
    assert (run["status"], run["error_type"]) == ("error", "openai.APIConnectionError")


@both
@pytest.mark.parametrize("way", ["stream", "invoke"])
def test_a_refused_connection_raises_a_connection_error_with_its_cause(
    style: CallStyle, way: str, tmp_path: Path
) -> None:
    """The cause is the HTTP client's error, which has the address and the reason."""
    with LoopbackProvider() as provider:
        model = chat(provider)
    with history_at(tmp_path) as history, pytest.raises(openai.APIConnectionError) as caught:
        getattr(style, way)(model, "Hi", {"callbacks": [history]})
    assert type(caught.value) is openai.APIConnectionError
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)
    assert recorded(history.recorder.url).run["status"] == "error"


@both
def test_a_silent_stream_raises_a_timeout_error(style: CallStyle, tmp_path: Path) -> None:
    """The error equals that of the bare SDK, and the tokens before it are stored."""
    with LoopbackProvider(Answer(frames=FRAMES, hang_after=3)) as provider, history_at(tmp_path) as history:
        expected = by_the_sdk(provider, timeout=0.3)
        with pytest.raises(openai.APITimeoutError) as caught:
            style.stream(chat(provider, callbacks=[history], timeout=0.3), "Hi")
    assert_alike(caught.value, expected)
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("error", "Hello there")


@both
def test_a_missing_response_raises_a_timeout_error(style: CallStyle) -> None:
    """The timeout of the call is used."""
    with LoopbackProvider(Answer(delay=60)) as provider, pytest.raises(openai.APITimeoutError):
        style.invoke(chat(provider), "Hi", timeout=0.3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ReadTimeout("slow"), openai.APITimeoutError),
        (httpx2.ReadError("cut"), openai.APIConnectionError),
        (httpx2.RemoteProtocolError("cut"), openai.APIConnectionError),
        # The SDK's aiohttp client raises these when a connection breaks.
        (httpx2.ConnectTimeout("Connection lost"), openai.APIConnectionError),
        (aiohttp.ClientPayloadError("cut"), openai.APIConnectionError),
        (ssl.SSLError("cut"), openai.APIConnectionError),
        (anyio.EndOfStream(), openai.APIConnectionError),
        (ValueError("none of ours"), ValueError),
        (httpx2.StreamConsumed(), httpx2.StreamConsumed),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else "",
)  # fmt: skip
def test_errors_of_the_http_client_become_the_sdks_errors(error: Exception, kind: type[Exception]) -> None:
    """This holds for every HTTP client, and the original error is the cause."""
    request = httpx2.Request("POST", "http://127.0.0.1/v1")

    def fail() -> Iterator[bytes]:
        yield b"x"
        raise error

    response = SimpleNamespace(http=SimpleNamespace(request=request), body=fail())
    reading = read(response, Reply(), openai)  # type: ignore[arg-type]
    assert next(reading) == b"x"
    with pytest.raises(kind) as caught:
        next(reading)
    assert type(caught.value) is kind
    if isinstance(caught.value, openai.APIError):
        assert (caught.value.request, caught.value.__cause__) == (request, error)


@both
def test_an_error_of_a_handler_is_raised_unchanged(style: CallStyle) -> None:
    """It gets no cause, even if it has a class of the HTTP client."""

    class Refuses(BaseCallbackHandler):
        raise_error = True

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise httpx2.ConnectError("the handler's own")

    with LoopbackProvider(Answer(frames=FRAMES)) as provider, pytest.raises(httpx2.ConnectError) as caught:
        style.stream(chat(provider, callbacks=[Refuses()]), "Hi")
    assert caught.value.__cause__ is None


# -- streams that are not read to their end --------------------------------------------------------------------


def one_connection() -> Any:
    """Return an HTTP client with one connection, so that a stream that does not release it blocks the next one."""
    limits, timeout = httpx2.Limits(max_connections=1), httpx2.Timeout(5, pool=1)
    return httpx2.Client(limits=limits, timeout=timeout, verify=False)


def one_connection_on_a_loop() -> Any:
    """Return the same kind of client for an event loop."""
    limits, timeout = httpx2.Limits(max_connections=1), httpx2.Timeout(5, pool=1)
    return httpx2.AsyncClient(limits=limits, timeout=timeout, verify=False)


def assert_left(url: str, text: str, run_id: Any = None) -> None:
    """Assert that the run is sealed as cancelled with this partial answer."""
    found = recorded(url, run_id)
    assert (found.run["status"], found.run["error_type"]) == ("cancelled", None)
    assert found.text == text
    assert found.transcript[1:] == ([("assistant", text)] if text else [])
    assert found.tokens.sha256 == found.tokens.found_sha256
    assert b"".join(FRAMES).startswith(found.body)


def begun(chunks: Any) -> Any:
    """Return the stream after its first text."""
    while not next(chunks).content:
        pass
    return chunks


@pytest.mark.parametrize("how", ["break", "close", "collected", "error"])
def test_leaving_a_stream_cancels_the_run(how: str, tmp_path: Path) -> None:
    """The run is sealed and the connection released after `break`, `close()`, garbage collection and an error."""
    answer = Answer(frames=FRAMES, chunks=50)
    with LoopbackProvider(answer) as provider, history_at(tmp_path) as history, one_connection() as http:
        model = chat(provider, callbacks=[history], http_client=http)
        if how == "error":
            with pytest.raises(ZeroDivisionError):
                [1 / 0 for chunk in model.stream("Hi") if chunk.content]
        elif how == "break":
            for chunk in model.stream("Hi"):
                if chunk.content:
                    break
        elif how == "close":
            begun(model.stream("Hi")).close()
        else:
            begun(model.stream("Hi"))
        gc.collect()
        assert text(list(model.stream("Ho"))) == "Hello there!"
        history.flush().wait()
        first, second = runs(history.recorder.url)
    assert second["status"] == "complete"
    assert_left(history.recorder.url, "Hello", first["id"])


async def leave(chunks: Any, how: str) -> None:
    """Leave an asynchronous stream after its first text."""
    async for chunk in chunks:
        if chunk.content:
            break
    if how == "aclose":
        await chunks.aclose()
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            await chunks.athrow(ZeroDivisionError())
    elif how == "timeout":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(chunks), 0.1)


@pytest.mark.parametrize("how", ["break", "aclose", "error", "timeout"])
def test_leaving_a_stream_on_a_loop_cancels_the_run(how: str, tmp_path: Path) -> None:
    """A stream that was left with `break` ends when it is collected."""

    async def main(provider: LoopbackProvider, history: Any) -> None:
        async with one_connection_on_a_loop() as http:
            model = chat(provider, callbacks=[history], http_async_client=http)
            await leave(model.astream("Hi"), how)
            gc.collect()
            assert text([chunk async for chunk in model.astream("Ho")]) == "Hello there!"

    answers = scripted(Answer(frames=FRAMES, hang_after=2), Answer(frames=FRAMES))
    with LoopbackProvider(answers) as provider, history_at(tmp_path) as history:
        asyncio.run(main(provider, history))
    first, second = runs(history.recorder.url)
    assert second["status"] == "complete"
    if how == "error":
        assert (first["status"], first["error_type"]) == ("error", "ZeroDivisionError")
    else:
        assert_left(history.recorder.url, "Hello", first["id"])


class AsyncHandler(BaseCallbackHandler):
    """A handler that returns an awaitable at every event except the end."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.errors.append(type(error).__name__)


async def ask(model: Any, way: str) -> None:
    """Call the model in one of the ways."""
    if way == "astream":
        async for _ in model.astream("Hi"):
            pass
    elif way == "astream_events":
        async for _ in model.astream_events("Hi", version="v2"):
            pass
    else:
        await model.ainvoke("Hi")


@pytest.mark.parametrize("connections", ["one", "new", "default"])
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "complete"])
@pytest.mark.parametrize("way", ["astream", "astream_events", "ainvoke"])
def test_a_task_can_be_cancelled_at_every_await(
    way: str, streaming: bool, connections: str, tmp_path: Path
) -> None:
    """The run is sealed as cancelled with its partial answer, CancelledError is raised, and the connection is released.

    All calls share one connection, or each call has a new one, or the SDK's default client decides.
    """
    waits = AsyncHandler()

    async def main(provider: LoopbackProvider, history: Any) -> int:
        nth = 1
        async with one_connection_on_a_loop() as one:
            http = one if connections != "default" else None
            model = chat(
                provider, callbacks=[waits, history], http_async_client=http, streaming=streaming, timeout=5
            )
            bystander = chat(provider, http_async_client=http)
            while await cancelled_at(nth, ask(model, way)):
                assert (await bystander.ainvoke("still there?")).content == "Hi"
                nth += 1
        return nth - 1

    headers = {"connection": "close"} if connections == "new" else {}

    def script(body: dict[str, Any], path: str) -> Answer:
        if body.get("stream"):
            return Answer(frames=FRAMES, chunks=400, headers=headers)
        return Answer(body=openai_chat_body(["Hi"]), headers=headers)

    with LoopbackProvider(script) as provider, history_at(tmp_path) as history:
        cancelled = asyncio.run(main(provider, history))
    assert cancelled >= 3
    *left, last = runs(history.recorder.url)
    assert last["status"] == "complete"
    assert [run["status"] for run in left] == ["cancelled"] * cancelled
    assert waits.errors == ["CancelledError"] * cancelled
    for run in left:
        found = recorded(history.recorder.url, run["id"])
        assert found.tokens.sha256 == found.tokens.found_sha256
        assert "Hello there!".startswith(found.text)
        assert b"".join(FRAMES).startswith(found.body)


@pytest.mark.parametrize("way", ["agenerate", "abatch"])
def test_cancelling_a_task_cancels_all_its_runs(way: str, tmp_path: Path) -> None:
    """No run continues in the background."""
    token_received = asyncio.Event()

    class Hears(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            if token:
                token_received.set()

    async def main(provider: LoopbackProvider, history: Any) -> set[Any]:
        model = chat(provider, callbacks=[history, Hears()], streaming=True)
        task = asyncio.create_task(getattr(model, way)([["Hi"], ["Ho"]]))
        await token_received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.all_tasks() - {asyncio.current_task()}

    with LoopbackProvider(Answer(frames=FRAMES, hang_after=3)) as provider, history_at(tmp_path) as history:
        assert asyncio.run(main(provider, history)) == set()
    assert [run["status"] for run in runs(history.recorder.url)] == ["cancelled", "cancelled"]


# -- handlers that misbehave -----------------------------------------------------------------------------------


class Unawaitable(BaseCallbackHandler):
    """A handler that returns an object that is not awaitable."""

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Any:
        return object()

    def on_llm_end(self, response: Any, **kwargs: Any) -> Any:
        return "thanks"


class Raises(BaseCallbackHandler):
    """A handler that raises in every method."""

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("start")

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise ValueError("token")

    async def on_chat_new_message(self, message: Any) -> None:
        raise ValueError("message")

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        raise ValueError("end")


class Slow(BaseCallbackHandler):
    """A handler with slow methods, synchronous and asynchronous."""

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        await asyncio.sleep(0.01)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        time.sleep(0.01)


@both
@pytest.mark.parametrize(
    "handler", [Unawaitable(), Raises(), Slow()], ids=lambda handler: type(handler).__name__
)
def test_a_misbehaving_handler_does_not_affect_the_run(
    style: CallStyle, handler: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The application gets its answer, and the other handlers get all events in order."""
    log = Log()
    caplog.set_level(logging.CRITICAL, "recorder")
    with LoopbackProvider(Answer(frames=FRAMES)) as provider, history_at(tmp_path) as history:
        chunks = style.stream(chat(provider, callbacks=[handler, history, log]), "Hi")
    assert text(chunks) == "".join(log.tokens) == "Hello there!"
    assert log.names[-1] == "llm_end"
    assert recorded(history.recorder.url).run["status"] == "complete"


@both
@pytest.mark.parametrize(
    "event_name", ["on_chat_model_start", "on_llm_new_token", "on_chat_new_message", "on_llm_end"]
)
def test_an_exception_of_a_handler_with_raise_error_ends_the_run(
    style: CallStyle, event_name: str, tmp_path: Path
) -> None:
    """The exception is raised from the call."""

    class Strict(BaseCallbackHandler):
        raise_error = True

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ValueError("not today")

    strict = Strict()
    setattr(strict, event_name, refuse)
    with LoopbackProvider(Answer(frames=FRAMES)) as provider, history_at(tmp_path) as history:
        with pytest.raises(ValueError, match="not today"):
            style.stream(chat(provider, callbacks=[history, strict]), "Hi")
        with pytest.raises(ValueError, match="not today"):
            style.stream(chat(provider, callbacks=[strict, history]), "Hi")
    for run in runs(history.recorder.url):
        assert run["status"] in ("error", "complete")


@both
def test_asynchronous_handlers_are_awaited_in_order(style: CallStyle) -> None:
    """This holds for synchronous and asynchronous streams."""
    seen: list[str] = []

    class Notes(BaseCallbackHandler):
        async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            seen.append("start")

        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.sleep(0.001)
            seen.append(token)

        async def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            seen.append(response.generations[0][0].text)

    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        style.stream(chat(provider, callbacks=[Notes()]), "Hi")
    assert [word for word in seen if word] == ["start", "Hello", " there", "!", "Hello there!"]


@both
def test_a_chunk_is_yielded_after_its_handlers_have_ended(style: CallStyle) -> None:
    """This holds for handlers that return awaitables, too."""
    seen: list[str] = []

    class Notes(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.sleep(0.001)
            seen.append("handler")

    async def main(model: Any) -> None:
        async for _ in model.astream("Hi"):
            seen.append("chunk")

    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        model = chat(provider, callbacks=[Notes()])
        if style.name == "plain":
            for _ in model.stream("Hi"):
                seen.append("chunk")
        else:
            asyncio.run(main(model))
    assert seen == ["handler", "chunk"] * (len(seen) // 2)


def test_a_synchronous_stream_works_on_a_running_loop() -> None:
    """Its asynchronous handlers are awaited, too."""
    seen: list[str] = []

    class Notes(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            seen.append(token)

    async def main(provider: LoopbackProvider) -> str:
        return text(list(chat(provider, callbacks=[Notes()]).stream("Hi")))

    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        assert asyncio.run(main(provider)) == "".join(seen) == "Hello there!"
