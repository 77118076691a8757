"""The writer translates the bytes of an attached client: nothing is lost, and the application never waits long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import aiohttp
import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.config import Config
from recorder.core.clock import iso, now
from recorder.instrumentation.deferred_attempt import DeferredAttempt
from recorder.recording.buffer import FULL
from recorder.recording.queue import RecordingQueue
from recorder.testing import Answer, LoopbackProvider, openai_chat_body, openai_chat_frames
from recorder.wire.framing import EVENTS, Framing
from recorder.wire.gemini import framing as gemini
from recorder.wire.ollama import framing as ollama
from tests.instrumentation.ways import QUESTION, texts_of
from tests.oracle import new_url, sql
from tests.recording.test_full_queue import Stopped

COUNT = 400
PIECES = [f"{number} " for number in range(COUNT)]
TEXT = "".join(PIECES)
#: Each event in an HTTP chunk of its own.
ANSWER = Answer(frames=list(openai_chat_frames(PIECES)))


def text_in(chunk: Any) -> str:
    """Return the text of a chunk; the last one has the usage and no choice."""
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def read(url: str, handlers: Any) -> str:
    """Read the stream with the synchronous client."""
    with openai.OpenAI(base_url=url, api_key="k") as client:
        attach(client, callbacks=handlers)
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        return "".join(map(text_in, stream))


def read_async(url: str, handlers: Any) -> str:
    """Read the stream on an event loop."""

    async def story() -> str:
        async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:
            attach(client, callbacks=handlers)
            stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            return "".join([text_in(chunk) async for chunk in stream])

    return asyncio.run(story())


def read_aiohttp(url: str, handlers: Any) -> str:
    """Read the stream with a session of aiohttp."""

    async def story() -> str:
        async with aiohttp.ClientSession() as session:
            attach(session, callbacks=handlers)
            body = {"model": "m", "messages": QUESTION, "stream": True}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return "".join(texts_of([line async for line in response.content]))

    return asyncio.run(story())


class Silent:
    """The attempt below, which does nothing."""

    def __init__(self, framing: Framing = EVENTS) -> None:
        request = SimpleNamespace(run_id=None, messages=[], body={})
        self.run = SimpleNamespace(wire="any", framing=framing, request=request, pending=None)

    def start(self) -> None:
        """Begin."""

    def feed(self, data: bytes, moment_us: int) -> None:
        """Take bytes."""

    def end(self) -> None:
        """End."""


class Recording(NamedTuple):
    """What an attempt needs of a recorder."""

    queue: RecordingQueue
    config: Config = Config(block_timeout=0.05)


each_way = pytest.mark.parametrize(
    "way", [read, read_async, read_aiohttp], ids=["plain", "on a loop", "aiohttp"]
)
Way = Callable[[str, Any], str]


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that streams many events."""
    with LoopbackProvider(ANSWER) as provider:
        yield provider


def recorded_text(url: str) -> str:
    """Return the stored text of the only run."""
    return "".join(text for (text,) in sql(url, "SELECT text FROM tokens WHERE kind = 'text' ORDER BY seq"))


def status_of(url: str) -> str:
    """Return the status of the only run."""
    [(status,)] = sql(url, "SELECT status FROM runs")
    return str(status)


@each_way
def test_everything_is_stored_when_the_recorder_is_closed(
    way: Way, tmp_path: Path, provider: LoopbackProvider
) -> None:
    """Also what was not translated yet."""
    url = new_url(tmp_path)
    history = ChatHistoryCallback(url)
    assert way(provider.base_url, [history]) == TEXT
    stats = history.close().wait()
    assert (status_of(url), recorded_text(url)) == ("complete", TEXT)
    assert (stats.accepted, stats.committed, stats.untranslated_bytes) == (COUNT, COUNT, 0)


@each_way
def test_bytes_are_counted_while_the_writer_waits_for_the_database(
    way: Way, tmp_path: Path, provider: LoopbackProvider
) -> None:
    """Their tokens are counted as accepted once they are translated."""
    url = new_url(tmp_path)
    store = Stopped(url)
    with ChatHistoryCallback(url, store=store) as history:
        assert way(provider.base_url, [history]) == TEXT
        before = history.stats()
        store.gate.set(None)
        history.flush().wait()
        after = history.stats()
    assert before.untranslated_bytes > 0
    assert before.accepted < COUNT
    assert before.queued_bytes >= before.untranslated_bytes
    assert (after.untranslated_bytes, after.accepted, after.committed) == (0, COUNT, COUNT)


@each_way
def test_a_chunk_without_room_ends_the_capture_and_not_the_stream(
    way: Way, tmp_path: Path, provider: LoopbackProvider
) -> None:
    """The application gets all of it. Stored are the text before it, and a gap to the end."""
    url = new_url(tmp_path)
    store = Stopped(url)
    with ChatHistoryCallback(url, store=store, max_queue_bytes=40_000, block_timeout=0.05) as history:
        assert way(provider.base_url, [history]) == TEXT
        store.gate.set(None)
        history.flush().wait()
    text = recorded_text(url)
    assert TEXT.startswith(text)
    assert 0 < len(text) < len(TEXT)
    assert status_of(url) == "interrupted"
    tokens = len(text.split())
    assert sql(url, "SELECT seq, count, reason FROM gaps") == [(tokens, 0, FULL)]
    assert sql(url, "SELECT frames_sha256 FROM runs") == [(None,)]
    assert sql(url, "SELECT token_count FROM runs") == [(tokens,)]


@each_way
def test_an_application_waits_for_a_database_that_comes_back(
    way: Way, tmp_path: Path, provider: LoopbackProvider
) -> None:
    """Then nothing is missing."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, max_queue_bytes=40_000, block_timeout=30.0) as history:
        assert way(provider.base_url, [history]) == TEXT
    assert (status_of(url), recorded_text(url)) == ("complete", TEXT)
    assert sql(url, "SELECT count(*) FROM gaps") == [(0,)]


def test_a_recorder_that_is_closed_in_a_stream_stores_what_came_before(tmp_path: Path) -> None:
    """The application reads on."""
    url = new_url(tmp_path)
    history = ChatHistoryCallback(url)
    got = ""
    with (
        LoopbackProvider(ANSWER) as provider,
        openai.OpenAI(base_url=provider.base_url, api_key="k") as client,
    ):
        attach(client, callbacks=[history])
        for chunk in client.chat.completions.create(model="m", messages=QUESTION, stream=True):
            got += text_in(chunk)
            if got == TEXT[: len(got)] and len(got) > 500 and not history.recorder.closed:
                before = got
                history.close().wait()
    assert got == TEXT
    assert status_of(url) == "interrupted"
    assert recorded_text(url).startswith(before)


def test_two_recorders_each_store_everything(tmp_path: Path, provider: LoopbackProvider) -> None:
    """With more than one handler the bytes are translated on the application's thread."""
    urls = [new_url(tmp_path, name) for name in ("one.db", "two.db")]
    with ChatHistoryCallback(urls[0]) as one, ChatHistoryCallback(urls[1]) as two:
        assert read(provider.base_url, [one, two]) == TEXT
    assert [(status_of(url), recorded_text(url)) for url in urls] == [("complete", TEXT)] * 2


def test_the_run_ends_when_its_last_bytes_came(tmp_path: Path, provider: LoopbackProvider) -> None:
    """Not when they were translated: that may be later, when the database was away."""
    url = new_url(tmp_path)
    store = Stopped(url)
    with ChatHistoryCallback(url, store=store) as history:
        read(provider.base_url, [history])
        moment = iso(now())
        store.gate.set(None)
        history.flush().wait()
    [(first, ended)] = sql(url, "SELECT first_token_at, ended_at FROM runs")
    assert first <= ended <= moment


def ask(url: str, history: ChatHistoryCallback, times: int = 1) -> None:
    """Ask without a stream."""
    with openai.OpenAI(base_url=url, api_key="k") as client:
        attach(client, callbacks=[history])
        for _ in range(times):
            answer = client.chat.completions.create(model="m", messages=QUESTION)
            assert answer.choices[0].message.content == TEXT


@pytest.fixture
def complete() -> Iterator[LoopbackProvider]:
    """Yield a provider that answers without a stream."""
    with LoopbackProvider(Answer(body=openai_chat_body(PIECES))) as provider:
        yield provider


def test_the_queue_counts_answers_that_are_no_streams(tmp_path: Path, complete: LoopbackProvider) -> None:
    """While the database is away the memory is bounded. What found no room is a gap, and the run is interrupted."""
    url = new_url(tmp_path)
    store = Stopped(url)
    with ChatHistoryCallback(url, store=store, max_queue_bytes=40_000, block_timeout=0.01) as history:
        ask(complete.base_url, history, times=50)
        assert history.stats().untranslated_bytes < 40_000
        store.gate.set(None)
        history.flush().wait()
    counts = dict(sql(url, "SELECT status, count(*) FROM runs GROUP BY status"))
    assert counts["complete"] > 0
    assert counts["interrupted"] > 0
    assert sum(counts.values()) == 50
    assert sql(url, "SELECT count(*) FROM gaps") == [(counts["interrupted"],)]


def test_nothing_is_kept_for_a_recorder_that_is_closed(tmp_path: Path, complete: LoopbackProvider) -> None:
    """Its writer will not come."""
    history = ChatHistoryCallback(new_url(tmp_path))
    with openai.OpenAI(base_url=complete.base_url, api_key="k") as client:
        attach(client, callbacks=[history])
        history.close().wait()
        client.chat.completions.create(model="m", messages=QUESTION)
        list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    assert not history.recorder.queue.has_deferred


def test_a_stream_waits_again_after_there_was_room() -> None:
    """`block_timeout` counts from the moment at which the queue became full."""
    queue = RecordingQueue(20_000, block_timeout=0.05)
    attempt = DeferredAttempt(
        cast(Any, Silent()), SimpleNamespace(recorder=Recording(queue), loses=lambda _: False)
    )
    attempt.start()
    for _ in range(2):
        attempt.feed(b"x" * 19_000)
        wait = attempt.feed(b"y" * 19_000)
        assert wait is not None
        queue.run_deferred(1)
        wait.wait()
        assert attempt.feed_again() is None
        queue.run_deferred(1)
        time.sleep(0.06)


@pytest.mark.parametrize(
    ("framing", "event"),
    [
        (EVENTS, b"data: {}\n\n"),
        (gemini.FRAMING, b"data: {}\r\n\r\n"),
        (gemini.FRAMING, b",{}"),
        (ollama.FRAMING, b"{}\n"),
    ],
)
def test_small_events_take_the_space_of_their_tokens(framing: Framing, event: bytes) -> None:
    """In the queue, so that it is full before the memory is, however many of them a chunk has."""
    queue = RecordingQueue(100_000, block_timeout=0.05)
    recorder = SimpleNamespace(recorder=Recording(queue), loses=lambda _: False)
    attempt = DeferredAttempt(cast(Any, Silent(framing)), recorder)
    attempt.start()
    assert attempt.feed(event * 200) is None
    assert attempt.feed(event * 200) is not None


def test_a_forked_child_leaves_an_open_stream_to_its_parent() -> None:
    """It has no writer that would take the bytes."""
    queue = RecordingQueue(20_000)
    attempt = DeferredAttempt(
        cast(Any, Silent()), SimpleNamespace(recorder=Recording(queue), loses=lambda _: False)
    )
    attempt.start()
    queue.reset()
    attempt.feed(b"x")
    attempt.end()
    assert not queue.has_deferred
