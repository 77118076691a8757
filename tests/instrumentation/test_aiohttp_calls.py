"""Model calls of aiohttp's own sessions are recorded once, however the application reads them and leaves them."""

from __future__ import annotations

import asyncio
import gc
import gzip
import inspect
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.callbacks import BaseCallbackHandler
from recorder.instrumentation import aiohttp_calls
from recorder.instrumentation.model_calls import LARGE_BODY
from recorder.models import ChatOpenAI
from recorder.runs.collected_streams import collector
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames
from tests.calls import name_of
from tests.instrumentation.test_attachment import Recorded, Scene
from tests.instrumentation.ways import CHAT, PIECES, QUESTION, TEXT
from tests.oracle import new_url, sql

STREAM = CHAT | {"stream": True}
FRAMES = list(openai_chat_frames(PIECES))
COMPLETE = Recorded("complete", TEXT, None, None, 1)
#: The answer stops after the first piece of text, and its connection stays open.
HANGING = Answer(frames=FRAMES, hang_after=2)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Yield a recorder of the whole process, which is closed afterwards."""
    scene = Scene(tmp_path)
    with scene.history, attach(callbacks=[scene.history]):
        yield scene


def run(story: Callable[[aiohttp.ClientSession], Awaitable[Any]], answer: Any = TEXT, **options: Any) -> Any:
    """Run a story with a session whose base URL is a provider's."""

    async def told() -> Any:
        with LoopbackProvider(answer) as provider:
            async with aiohttp.ClientSession(f"{provider.base_url}/", **options) as session:
                return await story(session)

    return asyncio.run(told())


@asynccontextmanager
async def asking(session: aiohttp.ClientSession, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask for a stream."""
    async with session.post("chat/completions", **{"json": STREAM, **options}) as response:
        yield response


async def until_text(response: aiohttp.ClientResponse) -> None:
    """Read the first event with text."""
    async for line in response.content:
        if PIECES[0].encode() in line:
            return


async def read_all(session: aiohttp.ClientSession, **options: Any) -> bytes:
    """Ask for a stream and read all of it."""
    async with asking(session, **options) as response:
        return await response.read()


# -- ways of reading ---------------------------------------------------------------------------------------------


async def by_readany(content: aiohttp.StreamReader) -> bytes:
    """Read what is there."""
    return b"".join(iter([data async for data in content.iter_any()]))


async def by_lines(content: aiohttp.StreamReader) -> bytes:
    """Read lines."""
    return b"".join([line async for line in content])


async def by_chunks(content: aiohttp.StreamReader) -> bytes:
    """Read the chunks of HTTP."""
    return b"".join([data async for data, _ in content.iter_chunks()])


async def by_size(content: aiohttp.StreamReader) -> bytes:
    """Read pieces of one size."""
    return b"".join([data async for data in content.iter_chunked(7)])


async def by_separator(content: aiohttp.StreamReader) -> bytes:
    """Read events."""
    found = b""
    while data := await content.readuntil(b"\n\n"):
        found += data
    return found


async def exactly(content: aiohttp.StreamReader) -> bytes:
    """Read as many bytes as there are, and not their end."""
    return await content.readexactly(len(b"".join(FRAMES)))


async def without_waiting(content: aiohttp.StreamReader) -> bytes:
    """Read what is there after all has come."""
    await content.wait_eof()
    return content.read_nowait()


async def put_back(content: aiohttp.StreamReader) -> bytes:
    """Put bytes back and read them again."""
    data = await content.read(300)
    with pytest.warns(DeprecationWarning, match="unread_data"):
        content.unread_data(data[20:])
    return data[:20] + await content.read(7) + await content.read()


READS = [by_readany, by_lines, by_chunks, by_size, by_separator, exactly, without_waiting, put_back]


@pytest.mark.parametrize("chunks", [None, 1, 5])
@pytest.mark.parametrize("read", READS)
def test_every_way_of_reading_gives_the_bytes_and_reports_them(
    read: Callable[[Any], Awaitable[bytes]], chunks: int | None, scene: Scene
) -> None:
    """The stored frames are the body."""

    async def story(session: aiohttp.ClientSession) -> bytes:
        async with asking(session) as response:
            assert isinstance(response.content, aiohttp.StreamReader)
            return await read(response.content)

    answer = Answer(frames=FRAMES) if chunks is None else Answer(body=b"".join(FRAMES), chunks=chunks)
    assert run(story, answer) == b"".join(FRAMES)
    assert scene.runs() == [COMPLETE]


def test_a_read_that_is_given_up_loses_nothing(scene: Scene) -> None:
    """A program may limit the time of each read, and read on."""

    async def story(session: aiohttp.ClientSession) -> tuple[bytes, int]:
        found, given_up = b"", 0
        async with asking(session) as response:
            while not response.content.at_eof():
                try:
                    found += await asyncio.wait_for(response.content.readany(), 0.001)
                except TimeoutError:
                    given_up += 1
        return found, given_up

    body, given_up = run(story, Answer(frames=FRAMES, interval=0.02))
    assert (body, given_up > 0) == (b"".join(FRAMES), True)
    assert scene.runs() == [COMPLETE]


def test_a_line_that_is_too_long_does_not_end_the_run(scene: Scene) -> None:
    """aiohttp raises, and the application may read on."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with asking(session) as response:
            await response.content.wait_eof()
            with pytest.raises(aiohttp.http_exceptions.LineTooLong):
                await response.content.readuntil(b"nothing", max_size=10)
            await response.read()

    run(story, Answer(body=b"".join(FRAMES), chunks=2**16))
    assert scene.runs() == [COMPLETE]


def test_bodies_are_recognised_in_each_form(scene: Scene) -> None:
    """As JSON, bytes, text and a file in memory; the encoder of JSON is the session's."""
    text = json.dumps(STREAM)

    async def story(session: aiohttp.ClientSession) -> None:
        for options in (
            {"json": STREAM},
            {"json": None, "data": text},
            {"json": None, "data": text.encode()},
            {"json": None, "data": io.BytesIO(text.encode())},
        ):
            await read_all(session, **options)

    run(story, Answer(frames=FRAMES), json_serialize=lambda body: json.dumps(body, indent=2))
    assert scene.runs() == [COMPLETE] * 4


def test_a_large_body_is_recorded(scene: Scene) -> None:
    """It is read on another thread."""
    body = STREAM | {"messages": [{"role": "user", "content": "x" * (LARGE_BODY + 1)}]}
    run(lambda session: read_all(session, json=body))
    assert scene.runs() == [COMPLETE]


@pytest.mark.parametrize("decompresses", [True, False])
def test_a_compressed_answer_is_recorded(decompresses: bool, scene: Scene) -> None:
    """Whether aiohttp decodes it or the application."""
    body = gzip.compress(b"".join(FRAMES))
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    got = run(read_all, Answer(body=body, headers=headers, chunks=7), auto_decompress=decompresses)
    assert got == (b"".join(FRAMES) if decompresses else body)
    assert scene.runs() == [COMPLETE]


# -- what is not recorded -----------------------------------------------------------------------------------------


def test_what_is_no_model_call_is_not_touched(scene: Scene) -> None:
    """Its body has aiohttp's own class. A body of another shape at the same path is none, too."""

    async def story(session: aiohttp.ClientSession) -> list[type]:
        kinds = []
        for url, options in (
            ("embeddings", {"json": CHAT}),
            ("chat/completions", {"json": {"model": "m"}}),
            ("chat/completions", {"data": b"no JSON"}),
        ):
            async with session.post(url, **options) as response:
                kinds.append(type(response.content))
        return kinds

    assert run(story) == [aiohttp.StreamReader] * 3
    assert scene.runs() == []


def test_hosts_are_chosen(tmp_path: Path) -> None:
    """An excluded host is not recorded, and an included one is."""
    scene = Scene(tmp_path)
    with scene.history:
        for options, count in (({"exclude_hosts": ["127.*"]}, 0), ({"include_hosts": ["127.*"]}, 1)):
            with attach(callbacks=[scene.history], **options):
                run(read_all)
            assert len(scene.runs()) == count


def test_a_session_is_recorded_until_it_is_detached(tmp_path: Path) -> None:
    """Of two attachments with the same handler each call is recorded once; another session is not recorded."""
    scene = Scene(tmp_path)

    async def story(session: aiohttp.ClientSession) -> None:
        first, second = attach(session, scene.history), attach(session, scene.history)
        await read_all(session)
        first.detach()
        await read_all(session)
        second.detach()
        await read_all(session)

    with scene.history:
        run(story)
        run(read_all)
        assert scene.runs() == [COMPLETE] * 2


def test_attaching_twice_records_once(scene: Scene) -> None:
    """The process, the process again and the session."""

    async def story(session: aiohttp.ClientSession) -> None:
        with attach(callbacks=[scene.history]), attach(session, [scene.history]):
            await read_all(session)

    run(story)
    assert scene.runs() == [COMPLETE]


def test_two_recorders_each_get_the_call_as_the_same_run(tmp_path: Path, scene: Scene) -> None:
    """One of the process and one of the session."""
    other = new_url(tmp_path, "other.db")

    async def story(session: aiohttp.ClientSession) -> None:
        with ChatHistoryCallback(other) as history, attach(session, [history]):
            await read_all(session)

    run(story)
    assert scene.runs() == [COMPLETE]
    assert sql(other, "SELECT id, status FROM runs") == sql(scene.url, "SELECT id, status FROM runs")


def test_a_client_of_httpx_over_aiohttp_is_recorded_once(scene: Scene) -> None:
    """The SDK's client has aiohttp as its transport; recorder's own models have it, too, and report themselves."""

    async def story(session: aiohttp.ClientSession) -> None:
        url = str(session._base_url)
        async with openai.AsyncOpenAI(
            base_url=url, api_key="k", http_client=openai.DefaultAioHttpClient()
        ) as client:
            await client.chat.completions.create(model="m", messages=QUESTION)
            async for _ in await client.chat.completions.create(model="m", messages=QUESTION, stream=True):
                pass
        async for _ in ChatOpenAI(base_url=url, api_key="k", callbacks=[scene.history]).astream("Hi"):
            pass

    run(story)
    assert scene.runs() == [COMPLETE] * 3


class ElsewhereTransport(httpx2.AsyncBaseTransport):
    """A transport that sends with aiohttp, in a task or a thread of its own."""

    def __init__(self, where: str) -> None:
        self.where = where

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request."""
        body = request.read()
        if self.where == "task":
            content = await asyncio.create_task(self._send(str(request.url), body))
        else:
            content = await asyncio.to_thread(asyncio.run, self._send(str(request.url), body))
        return httpx2.Response(200, content=content)

    async def _send(self, url: str, body: bytes) -> bytes:
        async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
            return await response.read()


@pytest.mark.parametrize("where", ["task", "thread"])
def test_a_transport_may_use_another_task_or_thread(where: str, scene: Scene) -> None:
    """It is part of the request that httpx sends."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with httpx2.AsyncClient(transport=ElsewhereTransport(where)) as client:
            await client.post(f"{session._base_url}chat/completions", json=CHAT)

    run(story)
    assert scene.runs() == [COMPLETE]


# -- ends ---------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_left_is_cancelled_with_what_was_read(scene: Scene) -> None:
    """The application leaves after a line, before the blank line that ends the event."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with asking(session) as response:
            await until_text(response)

    run(story, HANGING)
    assert scene.runs() == [Recorded("cancelled", PIECES[0], None, None, 1)]


def test_a_stream_that_is_left_at_its_terminator_is_complete(scene: Scene) -> None:
    """Programs stop at the line `data: [DONE]`."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with asking(session) as response:
            async for line in response.content:
                if b"[DONE]" in line:
                    break

    run(story, Answer(frames=FRAMES, hang_after=len(FRAMES)))
    assert scene.runs() == [COMPLETE]


@pytest.mark.parametrize("leave", ["close", "release"])
def test_a_response_that_is_closed_or_released_is_cancelled(leave: str, scene: Scene) -> None:
    """Without a with block."""

    async def story(session: aiohttp.ClientSession) -> list[Recorded]:
        response = await session.post("chat/completions", json=STREAM)
        await until_text(response)
        getattr(response, leave)()
        return scene.runs()  # while the application still has the response

    assert run(story, HANGING) == [Recorded("cancelled", PIECES[0], None, None, 1)]


def test_a_task_that_is_cancelled_while_it_reads_is_cancelled(scene: Scene) -> None:
    """The provider has sent the first piece, and is silent."""

    async def story(session: aiohttp.ClientSession) -> None:
        began = asyncio.Event()

        async def read() -> None:
            async with asking(session) as response:
                await until_text(response)
                began.set()
                await response.read()

        task = asyncio.create_task(read())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story, HANGING)
    assert [(each.status, each.text) for each in scene.runs()] == [("cancelled", PIECES[0])]


def test_a_task_that_is_cancelled_before_the_head_is_cancelled(scene: Scene) -> None:
    """The provider has the request and is silent."""

    async def story(_session: aiohttp.ClientSession) -> None:
        arrived, loop = asyncio.Event(), asyncio.get_running_loop()

        def script(_body: Any, _path: str) -> Answer:
            loop.call_soon_threadsafe(arrived.set)
            return Answer(body=b"{}", delay=30)

        with LoopbackProvider(script) as silent:
            async with aiohttp.ClientSession(f"{silent.base_url}/") as session:
                task = asyncio.create_task(read_all(session))
                await arrived.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    run(story)
    assert [each.status for each in scene.runs()] == ["cancelled"]


@pytest.mark.parametrize("timeout", [{"total": 0.2}, {"sock_read": 0.2}])
@pytest.mark.parametrize("answer", [Answer(body=b"{}", delay=30), HANGING], ids=["head", "body"])
def test_a_timeout_has_the_class_of_the_exception(timeout: Any, answer: Answer, scene: Scene) -> None:
    """Also where aiohttp cancels its own task for it."""

    async def story(session: aiohttp.ClientSession) -> BaseException:
        with pytest.raises(TimeoutError) as raised:
            await read_all(session, timeout=aiohttp.ClientTimeout(**timeout))
        return raised.value

    error = run(story, answer)
    [found] = scene.runs()
    assert (found.status, found.error_type) == ("error", name_of(error).removeprefix("builtins."))


def test_a_connection_that_is_cut_is_an_error_with_the_text_so_far(scene: Scene) -> None:
    """Also when the application reads all at once."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with asking(session) as response:
            await until_text(response)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()

    run(story, Answer(frames=FRAMES, cut_after=2))
    [found] = scene.runs()
    assert (found.status, found.text) == ("error", PIECES[0])
    assert found.error_type == "aiohttp.client_exceptions.ClientPayloadError"


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_a_response_that_is_dropped_is_cancelled(scene: Scene) -> None:
    """The open connection refers to it, so its end comes with that of the connection."""

    async def story(session: aiohttp.ClientSession) -> None:
        response = await session.post("chat/completions", json=STREAM)
        await until_text(response)

    run(story, HANGING)
    gc.collect()
    collector.drain(5)
    assert scene.runs() == [Recorded("cancelled", PIECES[0], None, None, 1)]


def test_a_body_outlives_its_response(scene: Scene) -> None:
    """All of it has come, so it can be read and is complete."""

    async def story(session: aiohttp.ClientSession) -> bytes:
        response = await session.post("chat/completions", json=CHAT)
        content = response.content
        await content.wait_eof()
        del response
        return await content.read()

    assert json.loads(run(story))["object"] == "chat.completion"
    assert scene.runs() == [COMPLETE]


def test_a_session_that_is_closed_while_it_reads_is_an_error(scene: Scene) -> None:
    """The exception is the one that the next read raises."""

    async def story(session: aiohttp.ClientSession) -> None:
        async with asking(session) as response:
            await until_text(response)
            await session.close()
            with pytest.raises(RuntimeError, match="Connection closed"):
                await response.content.readuntil(b"never")

    run(story, HANGING)
    assert scene.runs() == [Recorded("error", PIECES[0], "RuntimeError", "Connection closed.", 1)]


def test_two_streams_at_once_are_kept_apart(scene: Scene) -> None:
    """Of two sessions, read by turns."""

    async def story(session: aiohttp.ClientSession) -> None:
        other = aiohttp.ClientSession(session._base_url)
        async with other, asking(session) as one, asking(other) as two:
            lines = [aiter(one.content), aiter(two.content)]
            while lines:
                for each in list(lines):
                    if await anext(each, None) is None:
                        lines.remove(each)

    run(story)
    assert scene.runs() == [COMPLETE] * 2


def test_the_body_of_an_error_status_is_recorded(scene: Scene) -> None:
    """As the application reads it, which gets no exception."""

    async def story(session: aiohttp.ClientSession) -> Any:
        async with asking(session) as response:
            return (await response.json())["error"]["message"]

    message = run(story, Answer.error(429, "Slow down"))
    [found] = scene.runs()
    assert (found.status, found.error_type) == ("error", "aiohttp.client_exceptions.ClientResponseError")
    assert (found.error_message, message) == ("Error code: 429 - Slow down", "Slow down")


def test_the_body_of_an_error_status_is_recorded_though_nobody_reads_it(scene: Scene) -> None:
    """`raise_for_status` releases the response."""

    async def story(session: aiohttp.ClientSession) -> None:
        response = await session.post("chat/completions", json=CHAT)
        await response.content.wait_eof()
        with pytest.raises(aiohttp.ClientResponseError):
            response.raise_for_status()

    run(story, Answer.error(400, "No"))
    assert [each.error_message for each in scene.runs()] == ["Error code: 400 - No"]


def test_an_answer_without_a_body_is_an_error(scene: Scene) -> None:
    """All such responses share one object as their body, which is not touched."""

    async def story(session: aiohttp.ClientSession) -> type:
        async with asking(session) as response:
            return type(response.content)

    assert run(story, Answer(status=204)).__name__ in ("EmptyStreamReader", "StreamReader")
    assert [each.status for each in scene.runs()] == ["error"]


def test_a_connection_that_is_refused_is_an_error(scene: Scene) -> None:
    """The request was never sent."""

    async def story(session: aiohttp.ClientSession) -> None:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post("http://127.0.0.1:9/v1/chat/completions", json=CHAT)

    run(story)
    [found] = scene.runs()
    assert (found.status, found.error_type) == ("error", "aiohttp.client_exceptions.ClientConnectorError")


def test_what_aiohttp_refuses_to_send_is_no_run(scene: Scene) -> None:
    """The exceptions are aiohttp's."""

    async def story(session: aiohttp.ClientSession) -> None:
        with pytest.raises(ValueError, match="data and json"):
            await session.post("chat/completions", json=CHAT, data=b"x")
        with pytest.raises(aiohttp.InvalidURL):
            await session.post("http://[::1", json=CHAT)
        unknown: Any = {"unknown": 1}
        with pytest.raises(TypeError, match="unknown"):
            await session.post("chat/completions", json=CHAT, **unknown)
        await session.close()
        with pytest.raises(RuntimeError, match="Session is closed"):
            await session.post("chat/completions", json=CHAT)

    run(story)
    assert scene.runs() == []


def test_a_redirect_belongs_to_its_attempt(scene: Scene) -> None:
    """The naming headers are not sent to either URL."""

    async def story(session: aiohttp.ClientSession) -> None:
        def script(_body: Any, path: str) -> Answer | str:
            moved = {"location": "/v1/chat/completions"}
            return Answer(status=307, headers=moved) if path.startswith("/old") else TEXT

        with LoopbackProvider(script) as provider:
            headers = {"X-Recorder-User": "ann", "x-recorder-conversation": "c1"}
            url = f"{provider.url}/old/chat/completions"
            async with session.post(url, json=CHAT, headers=headers) as response:
                await response.read()
            assert len(provider.requests) == 2
            assert not [name for each in provider.requests for name in each["headers"] if "recorder" in name]

    run(story)
    assert scene.runs() == [COMPLETE]
    assert sql(scene.url, "SELECT id, user_id FROM conversations") == [("c1", "ann")]


def test_the_key_is_not_stored(scene: Scene) -> None:
    """The session's own headers carry it."""
    run(read_all, Answer.error(401, "The key sk-canary-17 is wrong"), headers={"x-api-key": "sk-canary-17"})
    [found] = scene.runs()
    assert found.error_message is not None
    assert "canary" not in found.error_message


# -- handlers and the queue -----------------------------------------------------------------------------------------


class Slow(BaseCallbackHandler):
    """A handler that needs the event loop for each step."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """Note the token later."""
        await asyncio.sleep(0)
        self.seen.append(token)

    async def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Note the end later."""
        await asyncio.sleep(0)
        self.seen.append("end")

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Note the error later."""
        await asyncio.sleep(0)
        self.seen.append(type(error).__name__)


def test_asynchronous_handlers_are_awaited(scene: Scene) -> None:
    """Beside the recorder; all is done when the application has read the end."""
    slow = Slow()

    async def story(session: aiohttp.ClientSession) -> list[str]:
        with attach(callbacks=[slow]):
            await read_all(session)
            return list(slow.seen)

    assert [each for each in run(story) if each] == [*PIECES, "end"]
    assert scene.runs() == [COMPLETE]


def test_asynchronous_handlers_of_a_stream_that_is_left_are_called() -> None:
    """Releasing a response awaits nothing, so another thread runs them."""
    slow = Slow()

    async def story(session: aiohttp.ClientSession) -> None:
        with attach(session, callbacks=[slow]):
            async with asking(session) as response:
                await until_text(response)

    run(story, HANGING)
    collector.drain(5)
    assert [each for each in slow.seen if each] == [PIECES[0], "GeneratorExit"]


# -- versions and programs ----------------------------------------------------------------------------------------


def test_a_version_that_cannot_be_recorded_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sessions send as before. Only a model call is worth the warning."""

    class ClientSession:
        async def _request(self, method: str, str_or_url: str) -> str:
            return str_or_url

    library: Any = SimpleNamespace(ClientSession=ClientSession, StreamReader=aiohttp.StreamReader)
    monkeypatch.setattr(aiohttp_calls, "_is_replaced", False)
    aiohttp_calls.replace(library)
    session: Any = ClientSession()
    with attach(callbacks=[Slow()]), caplog.at_level(logging.WARNING, "recorder"):
        urls = ["http://h/v1/embeddings", "http://h/v1/chat/completions", "http://h/v1/chat/completions"]
        for url in urls:
            assert asyncio.run(session._request("POST", url)) == url
    assert len(caplog.records) == 1
    assert "install aiohttp 3.12 or newer" in caplog.text


def test_the_replaced_method_looks_like_aiohttps() -> None:
    """Tools look at its signature, and whether it is asynchronous."""
    attach().detach()
    found = aiohttp.ClientSession._request
    assert asyncio.iscoroutinefunction(found)
    assert "middlewares" in inspect.signature(found).parameters
