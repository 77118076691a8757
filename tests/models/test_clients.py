"""The SDK's clients of models: connections are used again, each loop has its own, and none stays open."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import openai
import pytest

from recorder.models import clients
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames
from tests.chatting import ROADS, CountingProvider, Road, chat, name_of
from tests.oracle import run_python

both = pytest.mark.parametrize("road", ROADS, ids=name_of)

HELLO = openai_chat_frames(["Hello", "!"])


async def ask(model: Any) -> str:
    """The streamed answer to a question."""
    return "".join([chunk.content async for chunk in model.astream("Hi")])


def test_a_stream_gives_its_connection_back() -> None:
    """Streams and whole answers one after another need one connection; the bare SDK needs one a stream."""
    with CountingProvider("Hello") as provider:
        model = chat(provider)
        for _ in range(3):
            assert [chunk.content for chunk in model.stream("Hi") if chunk.content] == ["Hello"]
            model.invoke("Hi")
    assert provider.connections == 1


def test_a_stream_on_a_loop_gives_its_connection_back() -> None:
    """The same on an event loop."""

    async def main(model: Any) -> None:
        for _ in range(3):
            assert await ask(model) == "Hello"
            await model.ainvoke("Hi")

    with CountingProvider("Hello") as provider:
        asyncio.run(main(chat(provider)))
    assert provider.connections == 1


def test_models_share_the_connections() -> None:
    """Many applications make a model for each request."""

    async def main(provider: LoopbackProvider) -> None:
        for _ in range(3):
            await ask(chat(provider).bind(seed=1))

    with CountingProvider("Hello") as provider:
        for number in range(3):
            chat(provider, temperature=number).invoke("Hi")
        assert provider.connections == 1
        asyncio.run(main(provider))
    assert provider.connections == 2


def test_threads_share_a_client() -> None:
    """Eight at once on a new model."""
    with CountingProvider("Hello") as provider:
        model = chat(provider)
        model.batch(["Hi"] * 32, {"max_concurrency": 8})
        assert model._clients.sync_client() is model._clients.sync_client()
    assert provider.connections <= 8


def test_one_model_on_one_loop_after_another() -> None:
    """Each loop has its own connections, which are closed with it, and then the loop itself goes."""
    loops: list[weakref.ref[Any]] = []

    async def main(model: Any) -> Any:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await ask(model) == "Hello"
        return clients._clients_of_loop(asyncio.get_running_loop()).http("openai")

    with CountingProvider("Hello") as provider:
        model = chat(provider)
        used = [asyncio.run(main(model)) for _ in range(3)]
    assert [http.is_closed for http in used] == [True] * 3
    assert provider.connections == 3
    del used
    gc.collect()  # here an open connection would say so
    assert [loop() for loop in loops] == [None] * 3


def test_a_loop_that_ends_in_the_middle_of_streams() -> None:
    """Streams that nobody reads to their end do not disturb the end of the loop."""
    left: list[Any] = []

    async def main(model: Any) -> None:
        for _ in range(3):
            chunks = model.astream("Hi")
            assert (await anext(chunks)).content == ""
            left.append(chunks)

    with CountingProvider(Answer(frames=HELLO, hang_after=2)) as provider:
        asyncio.run(main(chat(provider)))
    left.clear()
    gc.collect()


def test_a_loop_that_was_closed_without_shutdown_asyncgens_is_forgotten() -> None:
    """The first call on the next loop drops its clients."""
    with LoopbackProvider("Hello") as provider:
        model = chat(provider)
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(model.ainvoke("Hi")).content == "Hello"
        http = loop.run_until_complete(_http_of(loop))
        loop.run_until_complete(http.aclose())
        loop.close()
        assert loop in clients._loops
        asyncio.run(model.ainvoke("Hi"))
        assert loop not in clients._loops


async def _http_of(loop: asyncio.AbstractEventLoop) -> Any:
    return clients._clients_of_loop(loop).http("openai")


def test_the_caller_s_http_client_is_used_and_left_open() -> None:
    """The caller chooses proxies and certificates, and closes the client."""
    seen: list[str] = []
    with LoopbackProvider("Hello") as provider:
        hooks = {"request": [lambda request: seen.append(request.url.path)]}
        with openai.DefaultHttpxClient(event_hooks=hooks) as http:
            assert chat(provider, http_client=http).invoke("Hi").content == "Hello"
            assert not http.is_closed
    assert seen == ["/v1/chat/completions"]


def test_the_caller_s_asynchronous_http_client_is_used_and_left_open() -> None:
    """The same on an event loop."""
    seen: list[str] = []

    async def note(request: Any) -> None:
        seen.append(request.url.path)

    async def main(provider: LoopbackProvider) -> None:
        async with openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]}) as http:
            assert await ask(chat(provider, http_async_client=http)) == "Hello"
            assert not http.is_closed

    with LoopbackProvider("Hello") as provider:
        asyncio.run(main(provider))
    assert seen == ["/v1/chat/completions"]


@both
def test_a_client_of_the_older_http_library_works(road: Road) -> None:
    """The SDK takes httpx and httpx2, and so do we."""
    httpx = pytest.importorskip("httpx")

    async def main(provider: LoopbackProvider) -> str:
        async with httpx.AsyncClient() as http:
            return await ask(chat(provider, http_async_client=http))

    with LoopbackProvider("Hello") as provider:
        if road.name == "plain":
            with httpx.Client() as http:
                text = "".join(chunk.text for chunk in chat(provider, http_client=http).stream("Hi"))
        else:
            text = asyncio.run(main(provider))
    assert text == "Hello"


def test_exit_warns_of_nothing() -> None:
    """A program that streams with and without a loop, and then ends. Every warning is an error."""
    done = run_python(
        """
import asyncio, gc, warnings
warnings.simplefilter("error")
from recorder.models import ChatOpenAI
from recorder.testing import LoopbackProvider

async def main(chat):
    async for chunk in chat.astream("Hi"):
        pass

with LoopbackProvider("Hello") as provider:
    chat = ChatOpenAI(base_url=provider.base_url, api_key="any")
    list(chat.stream("Hi"))
    next(iter(chat.stream("Hi")))
    asyncio.run(main(chat))
    left = chat.stream("Hi")
    next(left)
gc.collect()
print("over")
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("over\n", "", 0)


def test_a_forked_child_has_its_own_connections() -> None:
    """Parent and child on one connection would read each other's answers."""
    done = run_python(
        """
import asyncio, os, sys, warnings
from recorder.models import ChatOpenAI
from tests.chatting import CountingProvider

with CountingProvider("Hello") as provider:
    chat = ChatOpenAI(base_url=provider.base_url, api_key="any")
    assert chat.invoke("Hi").content == "Hello"
    child = os.fork()
    if child == 0:
        assert chat.invoke("Hi").content == "Hello"
        assert asyncio.run(chat.ainvoke("Hi")).content == "Hello"
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert chat.invoke("Hi").content == "Hello"
    print(provider.connections)
"""
    )
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


@both
def test_no_client_is_made_before_it_is_needed(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model can be made where there is no key yet."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, api_key=None)
        monkeypatch.setenv("OPENAI_API_KEY", "later")
        assert road.invoke(model, "Hi").content == "Hello"
    assert provider.requests[0]["headers"]["authorization"] == "Bearer later"
