"""The SDK clients of models: connections are reused, each event loop has its own, and all are closed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import openai
import pytest

from recorder.models import clients
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames
from tests.chatting import CALL_STYLES, CallStyle, CountingProvider, chat, name_of
from tests.oracle import run_python

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

HELLO = openai_chat_frames(["Hello", "!"])


async def ask(model: Any) -> str:
    """Return the streamed answer to a question."""
    return "".join([chunk.content async for chunk in model.astream("Hi")])


def test_streams_and_answers_reuse_one_connection() -> None:
    """The bare SDK needs one connection for each stream."""
    with CountingProvider("Hello") as provider:
        model = chat(provider)
        for _ in range(3):
            assert [chunk.content for chunk in model.stream("Hi") if chunk.content] == ["Hello"]
            model.invoke("Hi")
    assert provider.connections == 1


def test_streams_and_answers_on_a_loop_reuse_one_connection() -> None:
    """Three streams and three complete answers need one connection."""

    async def main(model: Any) -> None:
        for _ in range(3):
            assert await ask(model) == "Hello"
            await model.ainvoke("Hi")

    with CountingProvider("Hello") as provider:
        asyncio.run(main(chat(provider)))
    assert provider.connections == 1


def test_models_share_connections() -> None:
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
    """Eight threads that use a new model at once get one client."""
    with CountingProvider("Hello") as provider:
        model = chat(provider)
        model.batch(["Hi"] * 32, {"max_concurrency": 8})
        assert model._clients.sync_client() is model._clients.sync_client()
    assert provider.connections <= 8


def test_connections_are_closed_with_their_loop() -> None:
    """A model on three loops, one after another, uses three connections and keeps no reference to a loop."""
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
    gc.collect()  # an open connection would raise a warning here
    assert [loop() for loop in loops] == [None] * 3


def test_a_loop_can_end_with_unread_streams() -> None:
    """Streams that are not read to their end raise no error and no warning."""
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


def test_clients_of_a_loop_that_was_closed_abruptly_are_dropped() -> None:
    """The first call on the next loop drops them."""
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


def test_the_callers_http_client_is_used_and_not_closed() -> None:
    """The caller chooses proxies and certificates, and closes the client."""
    seen: list[str] = []
    with LoopbackProvider("Hello") as provider:
        hooks = {"request": [lambda request: seen.append(request.url.path)]}
        with openai.DefaultHttpxClient(event_hooks=hooks) as http:
            assert chat(provider, http_client=http).invoke("Hi").content == "Hello"
            assert not http.is_closed
    assert seen == ["/v1/chat/completions"]


def test_the_callers_asynchronous_http_client_is_used_and_not_closed() -> None:
    """The same holds on an event loop."""
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
def test_an_httpx_client_works(style: CallStyle) -> None:
    """The SDK accepts clients of httpx and httpx2."""
    httpx = pytest.importorskip("httpx")

    async def main(provider: LoopbackProvider) -> str:
        async with httpx.AsyncClient() as http:
            return await ask(chat(provider, http_async_client=http))

    with LoopbackProvider("Hello") as provider:
        if style.name == "plain":
            with httpx.Client() as http:
                text = "".join(chunk.text for chunk in chat(provider, http_client=http).stream("Hi"))
        else:
            text = asyncio.run(main(provider))
    assert text == "Hello"


def test_a_program_that_streams_exits_without_warnings() -> None:
    """It leaves streams open, with and without a loop, and every warning is an error."""
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
print("end")
"""
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


def test_a_forked_child_has_its_own_connections() -> None:
    """Two processes on one connection would read each other's answers."""
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
def test_the_key_is_read_at_the_first_call(style: CallStyle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model can be made before the environment has a key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, api_key=None)
        monkeypatch.setenv("OPENAI_API_KEY", "later")
        assert style.invoke(model, "Hi").content == "Hello"
    assert provider.requests[0]["headers"]["authorization"] == "Bearer later"
