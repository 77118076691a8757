"""`attach` records every way of calling an SDK, however the call ends, and changes nothing for the application."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import anthropic
import httpx
import httpx2
import openai
import pytest
import zstandard

from recorder import ChatHistoryCallback, Closed, ConfigError, attach
from recorder.callbacks import BaseCallbackHandler
from recorder.instrumentation.model_calls import LARGE_BODY
from recorder.testing import Answer, LoopbackProvider
from tests.calls import Got, called, name_of, text_of
from tests.instrumentation.ways import (
    QUESTION,
    STREAMED,
    TEXT,
    WAYS,
    Way,
    create,
    create_stream,
    error_of,
    frames_of,
    second_time_lucky,
)
from tests.oracle import ROOT, new_url, sql

CELLS = [
    pytest.param(client, way, id=f"{client} {way.__name__}") for client, ways in WAYS.items() for way in ways
]
#: The SDKs' ways are a matrix: a sample of them is run, unless --all is given.
_ways = pytest.mark.parametrize(("client", "way"), CELLS)
_streamed = pytest.mark.parametrize(("client", "way"), [cell for cell in CELLS if cell.values[1] in STREAMED])


def every_way(test: Any) -> Any:
    """Run a test for every way of calling an SDK."""
    return pytest.mark.matrix(_ways(test))


def streamed_ways(test: Any) -> Any:
    """Run a test for every way that reads a stream."""
    return pytest.mark.matrix(_streamed(test))


class Recorded(NamedTuple):
    """What the database holds of one run."""

    status: str
    text: str
    error_type: str | None
    error_message: str | None
    attempt: int


class Scene:
    """A recorder with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = new_url(folder)
        self.history = ChatHistoryCallback(self.url)

    def runs(self) -> list[Recorded]:
        """Return the stored runs, in the order in which they began."""
        self.history.flush().wait()
        query = "SELECT id, status, error_type, error_message, attempt FROM runs ORDER BY started_at, attempt"
        return [Recorded(status, text_of(self.url, id), *rest) for id, status, *rest in sql(self.url, query)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Yield a recorder that is closed afterwards."""
    scene = Scene(tmp_path)
    with scene.history:
        yield scene


async def sent_twice(request: Any, handler: Any) -> Any:
    """Send a request once more after an error: a middleware that does what the SDKs do."""
    try:
        response = await handler(request)
    except aiohttp.ClientConnectionError:
        return await handler(request)
    return await handler(request) if response.status >= 500 else response


def client_of(name: str, url: str) -> Any:
    """Return the SDK's client for a provider on this machine, or a session that sends again as the SDKs do."""
    kind, _, transport = name.partition(" over ")
    if kind == "aiohttp.ClientSession":
        headers = {"Authorization": "Bearer sk-canary-17"}
        return aiohttp.ClientSession(f"{url}/", headers=headers, middlewares=[sent_twice])
    sdk: Any = {"openai": openai, "anthropic": anthropic}[kind.split(".")[0]]
    options: dict[str, Any] = {"api_key": "sk-canary-17", "max_retries": 1}
    if "Azure" in kind:
        options |= {"azure_endpoint": url, "api_version": "2025-01-01", "azure_deployment": "gpt"}
    else:
        options["base_url"] = url if sdk is anthropic else f"{url}/v1"
    if transport:
        options["http_client"] = sdk.DefaultAioHttpClient()
    return getattr(sdk, kind.split(".")[1])(**options)


def call(name: str, way: Way, url: str, handlers: Any, *, pieces: int | None = None) -> Got:
    """Call an attached client, and leave it after so many pieces. A later call is none that repeats this one."""

    def opened() -> Any:
        client = client_of(name, url)
        if handlers is not None:
            attach(client, callbacks=handlers)
        return client

    return called(way, opened, pieces)


# -- every way, every end ------------------------------------------------------------------------------------------


@every_way
def test_an_answer_is_recorded_once(client: str, way: Way, scene: Scene) -> None:
    """The run is complete and has the text that the application got."""
    with LoopbackProvider(TEXT) as provider:
        got = call(client, way, provider.url, [scene.history])
    assert got == Got(TEXT, None)
    assert scene.runs() == [Recorded("complete", TEXT, None, None, 1)]


@every_way
def test_an_error_status_is_recorded_as_the_sdk_names_it(client: str, way: Way, scene: Scene) -> None:
    """The run has the class and the message of the exception that the application got."""
    with LoopbackProvider(error_of(client, 400)) as provider:
        got = call(client, way, provider.url, [scene.history])
    [run] = scene.runs()
    message = str(got.error)
    if client.startswith("aiohttp"):  # its exception says nothing of the body, which may not have come yet
        message = str(run.error_message)
        assert message.startswith("Error code: 400")
    assert run == Recorded("error", "", name_of(got.error), message, 1)


@every_way
def test_each_attempt_is_a_run(client: str, way: Way, scene: Scene) -> None:
    """An attempt that failed and the one that followed have numbers, and stand in one conversation."""
    with LoopbackProvider(second_time_lucky(client)) as provider:
        got = call(client, way, provider.url, [scene.history])
    assert got == Got(TEXT, None)
    first, second = scene.runs()
    assert (first.status, first.attempt) == ("error", 1)
    assert second == Recorded("complete", TEXT, None, None, 2)
    assert sql(scene.url, "SELECT count(*) FROM conversations") == [(1,)]


@every_way
def test_a_provider_that_cannot_be_reached_is_an_error(client: str, way: Way, scene: Scene) -> None:
    """Each attempt has the SDK's class for it."""
    got = call(client, way, "http://127.0.0.1:9", [scene.history])
    assert [(run.status, run.error_type) for run in scene.runs()] == [("error", name_of(got.error))] * 2


@streamed_ways
def test_a_connection_that_is_cut_is_an_error_with_the_text_so_far(
    client: str, way: Way, scene: Scene
) -> None:
    """The class is the one of the exception that the application got."""
    with LoopbackProvider(Answer(frames=frames_of(client, way), cut_after=5)) as provider:
        got = call(client, way, provider.url, [scene.history])
    [run] = scene.runs()
    assert (run.status, run.text, run.error_type) == ("error", got.text, name_of(got.error))


@streamed_ways
def test_a_stream_that_is_left_is_cancelled(client: str, way: Way, scene: Scene) -> None:
    """The text so far is stored."""
    answer = Answer(frames=frames_of(client, way), interval=0.01)
    with LoopbackProvider(answer) as provider:
        got = call(client, way, provider.url, [scene.history], pieces=1)
    [run] = scene.runs()
    assert run.status == "cancelled"
    assert run.text.startswith(got.text)
    assert run.error_type is None


@streamed_ways
def test_a_stream_without_its_end_is_interrupted(client: str, way: Way, scene: Scene) -> None:
    """Nothing tells the application; the run says it."""
    frames = frames_of(client, way)[:3]
    with LoopbackProvider(Answer(frames=frames)) as provider:
        got = call(client, way, provider.url, [scene.history])
    [run] = scene.runs()
    assert (run.status, run.text) == ("interrupted", got.text)


def test_the_table_of_the_page_has_each_way() -> None:
    """docs/attach.md shows the clients and the ways that are tested above."""
    page = (ROOT / "docs" / "attach.md").read_text(encoding="utf-8")
    for client, ways in WAYS.items():
        name, _, rest = client.partition(" ")
        shown = ", ".join((way.__doc__ or "").removesuffix(".") for way in ways)
        assert f"| `{name}`{' ' + rest if rest else ''} | {shown} |\n" in page


# -- the application's side ------------------------------------------------------------------------------------------


def test_the_request_and_the_answer_are_the_same_as_without_a_recorder(scene: Scene) -> None:
    """The provider gets the same request, and the application the same chunks."""
    seen: list[Any] = []
    for handlers in (None, [scene.history]):
        with LoopbackProvider(TEXT) as provider:
            got = call("openai.OpenAI", create_stream, provider.url, handlers)
            # How much of the answer was sent is not known yet when the client closes the stream.
            request = {**provider.requests[0], "frames_sent": None}
            sent = {**request, "headers": {**request["headers"], "host": ""}}
            seen.append((got, sent))
    assert seen[0] == seen[1]


def test_headers_name_the_conversation_and_the_user_and_are_not_sent(scene: Scene) -> None:
    """They are removed from the request, in any case of their letters."""
    names = {"X-Recorder-Conversation": "c1", "x-recorder-user": "ann"}
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        attach(client, scene.history)
        client.chat.completions.create(model="m", messages=QUESTION, extra_headers=names)
        assert not [name for name in provider.requests[0]["headers"] if "recorder" in name]
    scene.history.flush().wait()
    assert sql(scene.url, "SELECT id, user_id FROM conversations") == [("c1", "ann")]


def test_the_conversation_of_the_code_around_the_call_is_used(scene: Scene) -> None:
    """`with history.conversation(...)` names it."""
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        attach(client, scene.history)
        with scene.history.conversation("c2"):
            list(create(client))
    scene.history.flush().wait()
    assert sql(scene.url, "SELECT id FROM conversations") == [("c2",)]


def test_a_response_that_continues_another_belongs_to_its_conversation(scene: Scene) -> None:
    """Also on another client, and after a branch: the request names the response, not the conversation."""
    with LoopbackProvider(TEXT) as provider:
        last: list[str] = []
        for question in ("one", "two", "three"):
            with client_of("openai.OpenAI", provider.url) as client:
                attach(client, scene.history)
                previous = last[-1] if last else None
                found = client.responses.create(model="m", input=question, previous_response_id=previous)
                last.append(found.id)
    scene.history.flush().wait()
    query = "SELECT role, content FROM transcripts ORDER BY position"
    answer = ("assistant", TEXT)
    assert sql(scene.url, query) == [
        ("user", "one"),
        answer,
        ("user", "two"),
        answer,
        ("user", "three"),
        answer,
    ]
    assert sql(scene.url, "SELECT count(*) FROM conversations") == [(1,)]


def test_a_background_answer_that_goes_on_is_interrupted(scene: Scene) -> None:
    """The application reads it later."""
    body = b'{"id":"resp_1","object":"response","status":"queued","model":"m","output":[]}'
    with (
        LoopbackProvider(Answer(body=body)) as provider,
        client_of("openai.OpenAI", provider.url) as client,
    ):
        attach(client, scene.history)
        assert client.responses.create(model="m", input="Hi", background=True).status == "queued"
    scene.history.flush().wait()
    assert sql(scene.url, "SELECT status, response_id FROM runs") == [("interrupted", "resp_1")]


def test_a_conversation_that_openai_keeps_is_the_conversation(scene: Scene) -> None:
    """A header names another one."""
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        attach(client, scene.history)
        client.responses.create(model="m", input="Hi", conversation="conv_1")
        client.responses.create(model="m", input="Hi", conversation={"id": "conv_1"})
        names = {"x-recorder-conversation": "mine"}
        client.responses.create(model="m", input="Hi", conversation="conv_1", extra_headers=names)
    scene.history.flush().wait()
    query = "SELECT conversation_id, count(*) FROM runs GROUP BY 1 ORDER BY 1"
    assert sql(scene.url, query) == [("conv_1", 2), ("mine", 1)]


def test_the_key_is_not_stored(scene: Scene) -> None:
    """An error message that repeats the key is masked."""
    answer = Answer.error(401, "The key sk-canary-17 is wrong")
    with LoopbackProvider(answer) as provider, client_of("openai.OpenAI", provider.url) as client:
        attach(client, scene.history)
        with pytest.raises(openai.AuthenticationError):
            list(create(client))
    [run] = scene.runs()
    assert run.error_message is not None
    assert "The key" in run.error_message
    assert "canary" not in run.error_message


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_compressed_stream_is_recorded(encoding: str, scene: Scene) -> None:
    """The application's HTTP client decodes it, and so does recorder."""
    compress: Any = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}[encoding]
    body = compress(b"".join(frames_of("openai.OpenAI", create_stream)))
    headers = {"content-type": "text/event-stream", "content-encoding": encoding}
    answer = Answer(body=body, headers=headers, chunks=7)
    with LoopbackProvider(answer) as provider, httpx2.Client(base_url=provider.base_url) as client:
        attach(client, scene.history)
        question = {"model": "m", "messages": QUESTION, "stream": True}
        with client.stream("POST", "/chat/completions", json=question) as response:
            got = b"".join(response.iter_raw())
    assert got == body
    assert scene.runs() == [Recorded("complete", TEXT, None, None, 1)]


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(200, "openai.APIResponseValidationError"), (502, "openai.InternalServerError")],
)
def test_a_page_of_html_is_an_error(status: int, error_type: str, scene: Scene) -> None:
    """Proxies send such pages, also with status 200."""
    answer = Answer(status=status, body=b"<html>Bad Gateway</html>", headers={"content-type": "text/html"})
    with LoopbackProvider(answer) as provider, client_of("openai.OpenAI", provider.url) as client:
        attach(client, scene.history)
        with suppress(openai.APIError, AttributeError):
            list(create(client.with_options(max_retries=0)))
    [run] = scene.runs()
    assert (run.status, run.error_type) == ("error", error_type)


def test_an_unknown_encoding_ends_the_recording_and_not_the_stream(scene: Scene) -> None:
    """The application gets the bytes as they are."""
    headers = {"content-type": "text/event-stream", "content-encoding": "rot13"}
    answer = Answer(body=b"qngn: {}", headers=headers, chunks=100)
    with LoopbackProvider(answer) as provider, httpx.Client(base_url=provider.base_url) as client:
        attach(client, scene.history)
        question = {"model": "m", "messages": QUESTION, "stream": True}
        assert client.post("/chat/completions", json=question).content == b"qngn: {}"
    [run] = scene.runs()
    assert run.status == "error"
    assert run.error_message is not None
    assert "rot13" in run.error_message


def test_a_task_that_is_cancelled_is_recorded_as_cancelled(scene: Scene) -> None:
    """Also while the provider has not answered yet."""
    arrived, loops = asyncio.Event(), list[Any]()

    async def story(url: str) -> None:
        loops.append(asyncio.get_running_loop())
        async with client_of("openai.AsyncOpenAI", url) as client:
            attach(client, scene.history)
            task = asyncio.ensure_future(client.chat.completions.create(model="m", messages=QUESTION))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def script(request: Any, path: str) -> Answer:
        loops[0].call_soon_threadsafe(arrived.set)
        return Answer(body=b"{}", delay=30)

    with LoopbackProvider(script) as provider:
        asyncio.run(story(provider.url))
    assert [run.status for run in scene.runs()] == ["cancelled"]


def test_a_stream_that_is_dropped_is_cancelled(scene: Scene) -> None:
    """Its end is reported when the garbage collector finds it."""
    answer = Answer(frames=frames_of("openai.OpenAI", create_stream), hang_after=3)
    with LoopbackProvider(answer) as provider, client_of("openai.OpenAI", provider.url) as client:
        attach(client, scene.history)
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        next(stream)
        next(stream)
        del stream
        gc.collect()
        from recorder.runs.collected_streams import collector

        collector.drain(5)
    assert [(run.status, run.text) for run in scene.runs()] == [("cancelled", "Hello")]


# -- attaching -----------------------------------------------------------------------------------------------------


class Log(BaseCallbackHandler):
    """A handler that counts starts, and has the text of the tokens."""

    def __init__(self) -> None:
        self.starts = 0
        self.text = ""

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """A run begins."""
        self.starts += 1

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        """A token arrived."""
        self.text += token


def test_other_handlers_get_the_tokens(scene: Scene) -> None:
    """Beside a recorder, any handler of recorder's models can be attached."""
    log = Log()
    with LoopbackProvider(TEXT) as provider:
        call("openai.OpenAI", create_stream, provider.url, [scene.history, log])
    assert (log.starts, log.text) == (1, TEXT)


def test_a_handler_that_raises_does_not_break_the_stream(scene: Scene) -> None:
    """Also one with `raise_error`: the application did not call a model of recorder's."""

    class Broken(Log):
        raise_error = True

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            """Fail."""
            raise RuntimeError("broken")

    with LoopbackProvider(TEXT) as provider:
        assert call("openai.OpenAI", create_stream, provider.url, [Broken()]) == Got(TEXT, None)


def test_attaching_twice_records_once(scene: Scene) -> None:
    """The same handler is added once; another handler gets the calls, too."""
    log = Log()
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        for handlers in ([scene.history], scene.history, [log], [scene.history, log]):
            attach(client, callbacks=handlers)
        attach(client.with_options(timeout=3), callbacks=[scene.history])
        list(create(client))
    assert len(scene.runs()) == 1
    assert log.starts == 1


def test_detach_ends_it(scene: Scene) -> None:
    """The client is as it was before, also after several attachments that end in any order."""
    log = Log()
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        first, second = attach(client, scene.history), attach(client, log)
        first.detach()
        first.detach()
        list(create(client))
        second.detach()
        list(create(client))
        assert "send" not in vars(client._client)
    assert (scene.runs(), log.starts) == ([], 1)


def test_a_handler_that_was_attached_twice_is_detached_twice(scene: Scene) -> None:
    """A library that attaches and detaches does not end the application's own recording."""
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        own = attach(client, scene.history)
        with attach(client, scene.history):
            list(create(client))
        list(create(client))
        own.detach()
        list(create(client))
    assert len(scene.runs()) == 2


def test_a_with_block_detaches_at_its_end(scene: Scene) -> None:
    """Calls inside of the block are recorded."""
    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        with attach(client, scene.history):
            list(create(client))
        list(create(client))
    assert len(scene.runs()) == 1


def test_a_client_whose_send_somebody_else_replaced_is_recorded(scene: Scene) -> None:
    """Both see the request, in whatever order they came and go."""
    sent: list[str] = []

    def counting(send: Any) -> Any:
        def count(request: Any, **options: Any) -> Any:
            sent.append(request.method)
            return send(request, **options)

        return count

    with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
        before = counting(client._client.send)
        client._client.send = before
        attachment = attach(client, scene.history)
        list(create(client))
        attachment.detach()
        assert client._client.send is before
        attachment = attach(client, scene.history)
        client._client.send = counting(client._client.send)
        list(create(client))
        attachment.detach()
        list(create(client))
    assert (len(scene.runs()), len(sent)) == (2, 5)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_http_client_is_recorded_without_an_sdk(library: Any, scene: Scene) -> None:
    """Only its model calls: other requests, and bodies of another shape, pass untouched."""
    with LoopbackProvider(TEXT) as provider, library.Client(base_url=provider.base_url) as client:
        attach(client, scene.history)
        body = {"model": "m", "messages": QUESTION}
        answer = client.post("/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == TEXT
        client.post("/chat/completions", json={"model": "m"})
        client.post("/chat/completions", content=b"no JSON")
        client.get("/models")
    assert scene.runs() == [Recorded("complete", TEXT, None, None, 1)]


def test_hosts_are_chosen_by_patterns(scene: Scene) -> None:
    """Excluded hosts win."""
    for options, expected in (
        ({"include_hosts": ["127.0.*"]}, 1),
        ({"include_hosts": ["api.openai.com"]}, 1),
        ({"exclude_hosts": ["127.0.0.1"]}, 1),
    ):
        with LoopbackProvider(TEXT) as provider, client_of("openai.OpenAI", provider.url) as client:
            attach(client, scene.history, **options)
            list(create(client))
        assert len(scene.runs()) == expected


@pytest.mark.parametrize(
    ("client", "callbacks", "expected"),
    [
        (object(), [Log()], "attach got an object of type object; pass a client"),
        (openai.OpenAI, [Log()], "attach got the class OpenAI"),
        (httpx2.Client(), [object()], "not a handler"),
        (httpx2.Client(), [Log], "the class Log where an instance is needed"),
    ],
)
def test_what_cannot_be_attached_is_named(client: Any, callbacks: Any, expected: str) -> None:
    """The error says what to pass."""
    with pytest.raises(ConfigError, match=expected):
        attach(client, callbacks)


def test_a_closed_client_and_a_closed_recorder_are_refused(scene: Scene) -> None:
    """Both would record nothing."""
    closed = openai.OpenAI(api_key="k")
    closed.close()
    with pytest.raises(ConfigError, match="OpenAI is closed"):
        attach(closed, scene.history)
    scene.history.close().wait()
    with httpx2.Client() as client, pytest.raises(Closed, match="open a new one"):
        attach(client, scene.history)


def test_hosts_that_are_no_list_are_refused() -> None:
    """A single text would be read letter by letter."""
    with pytest.raises(ConfigError, match="pass a list of host names"):
        attach(httpx2.Client(), Log(), include_hosts="api.openai.com")


def test_a_body_that_a_hook_has_read_as_a_stream_stays_the_applications(tmp_path: Path) -> None:
    """The HTTP client keeps no body then, and the call succeeds as without recorder."""
    got: list[bytes] = []
    with (
        LoopbackProvider(Answer(frames=frames_of("openai.OpenAI", create_stream))) as provider,
        ChatHistoryCallback(new_url(tmp_path)) as history,
        httpx.Client(event_hooks={"response": [lambda response: got.extend(response.iter_raw())]}) as client,
    ):
        attach(client, callbacks=[history])
        body = {"model": "m", "messages": QUESTION, "stream": True}
        request = client.build_request("POST", f"{provider.base_url}/chat/completions", json=body)
        assert client.send(request, stream=True).status_code == 200
    assert b"".join(got)


@pytest.mark.parametrize("kind", ["application/json", "Text/Event-Stream", "text/plain; charset=utf-8"])
@pytest.mark.parametrize("size", [1, 4096])
def test_a_stream_is_recorded_whatever_its_content_type_is(kind: str, size: int, scene: Scene) -> None:
    """The SDKs read it as a stream because they have asked for one."""
    body = b"\n" + b"".join(frames_of("openai.OpenAI", create_stream))
    pieces = [body[place : place + size] for place in range(0, len(body), size)]

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": kind}, content=iter(pieces))

    http_client: Any = httpx.Client(transport=httpx.MockTransport(answer))
    with openai.OpenAI(api_key="k", http_client=http_client) as client:
        attach(client, callbacks=[scene.history])
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        got = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    assert got == TEXT
    assert [(run.status, run.text) for run in scene.runs()] == [("complete", TEXT)]


def large_call(scene: Scene) -> tuple[httpx.AsyncClient, httpx.Request]:
    """Return an attached client, and a request whose body is read on another thread."""
    answer = b"".join(frames_of("openai.OpenAI", create_stream))
    kind = {"content-type": "text/event-stream"}
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(200, headers=kind, content=answer))
    )
    attach(client, callbacks=[scene.history])
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * (LARGE_BODY + 1)}], "stream": True}
    return client, client.build_request("POST", "http://localhost/chat/completions", json=body)


def test_a_large_body_needs_no_thread_of_the_application(scene: Scene) -> None:
    """The threads of the loop's executor may all wait for the answer to this request."""

    async def story() -> int:
        release, loop = threading.Event(), asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as executor:
            loop.set_default_executor(executor)
            waiting = loop.run_in_executor(None, release.wait, 30)
            try:
                client, request = large_call(scene)
                response = await asyncio.wait_for(client.send(request), 10)
            finally:
                release.set()
            await waiting
        return response.status_code

    assert asyncio.run(story()) == 200
    assert [(run.status, run.text) for run in scene.runs()] == [("complete", TEXT)]


def test_a_large_body_is_recorded_on_another_kind_of_loop(scene: Scene) -> None:
    """HTTP clients work with trio, too, which cannot wait for a thread of recorder."""
    client, request = large_call(scene)
    with pytest.raises(StopIteration) as ended:
        client.send(request).send(None)
    assert ended.value.value.status_code == 200
    assert [(run.status, run.text) for run in scene.runs()] == [("complete", TEXT)]


class NeverDone(BaseCallbackHandler):
    """Takes a minute for the end of a run."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def on_llm_error(self, *_args: Any, **_named: Any) -> None:
        """Wait."""
        self.began.set()
        await asyncio.sleep(60)


def test_a_response_that_a_cancellation_keeps_from_the_application_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise its connection would never return to the pool."""
    closed: list[bool] = []
    aclose = httpx.Response.aclose

    async def noted(response: httpx.Response) -> None:
        await aclose(response)
        closed.append(response.is_closed)

    async def story(url: str) -> None:
        handler = NeverDone()
        async with httpx.AsyncClient() as client:
            attach(client, callbacks=[handler])
            body = {"model": "m", "messages": QUESTION}
            request = client.build_request("POST", f"{url}/chat/completions", json=body)
            sending = asyncio.create_task(client.send(request, stream=True))
            await asyncio.wait_for(handler.began.wait(), 10)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending

    # The run ends as soon as the response arrives, because recorder cannot decode it.
    answer = Answer(body=b"?", headers={"content-encoding": "unknown"})
    with LoopbackProvider(answer) as provider:
        monkeypatch.setattr(httpx.Response, "aclose", noted)
        asyncio.run(story(provider.base_url))
    assert closed == [True]
