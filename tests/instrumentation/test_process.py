"""`attach()` without a client records every client of the process, and each call once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.models import ChatOpenAI
from recorder.replay import Replay
from recorder.testing import LoopbackProvider
from tests.instrumentation.ways import QUESTION
from tests.oracle import ROOT, new_url, sql

BODY = {"model": "m", "messages": QUESTION}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


@pytest.fixture
def history(url: str) -> Iterator[ChatHistoryCallback]:
    """Yield a recorder that is closed afterwards."""
    with ChatHistoryCallback(url) as history:
        yield history


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider."""
    with LoopbackProvider("Hello there!") as provider:
        yield provider


def count_of(url: str, history: ChatHistoryCallback) -> int:
    """Return how many runs are stored."""
    history.flush().wait()
    [(count,)] = sql(url, "SELECT count(*) FROM runs WHERE status = 'complete'")
    return int(count)


def test_clients_made_before_and_after_are_recorded(
    url: str, history: ChatHistoryCallback, provider: LoopbackProvider
) -> None:
    """Of both HTTP libraries, with an SDK and without."""
    with openai.OpenAI(base_url=provider.base_url, api_key="k") as before, attach(callbacks=[history]):
        before.chat.completions.create(model="m", messages=QUESTION)
        httpx.post(f"{provider.base_url}/chat/completions", json=BODY)
        httpx2.post(f"{provider.base_url}/chat/completions", json=BODY)
        httpx.get(f"{provider.base_url}/models")
    assert count_of(url, history) == 3


def test_after_detach_nothing_is_recorded(
    url: str, history: ChatHistoryCallback, provider: LoopbackProvider
) -> None:
    """Of two attachments with the same handler each call is recorded once, until both are ended."""
    first, second = attach(callbacks=[history]), attach(callbacks=[history])
    httpx.post(f"{provider.base_url}/chat/completions", json=BODY)
    first.detach()
    first.detach()
    httpx.post(f"{provider.base_url}/chat/completions", json=BODY)
    second.detach()
    httpx.post(f"{provider.base_url}/chat/completions", json=BODY)
    assert count_of(url, history) == 2


def test_a_client_that_is_attached_too_is_recorded_once(
    url: str, history: ChatHistoryCallback, provider: LoopbackProvider
) -> None:
    """One recorder is called once for a request, however often it is attached."""
    with openai.OpenAI(base_url=provider.base_url, api_key="k") as client, attach(callbacks=[history]):
        attach(client, callbacks=[history])
        attach(client, callbacks=[history], exclude_hosts=["example.org"])
        client.chat.completions.create(model="m", messages=QUESTION)
    assert count_of(url, history) == 1


def test_two_recorders_each_get_the_call(tmp_path: Path, provider: LoopbackProvider) -> None:
    """One of the process and one of the client."""
    urls = new_url(tmp_path, "one.db"), new_url(tmp_path, "two.db")
    one, two = map(ChatHistoryCallback, urls)
    with one, two, attach(callbacks=[one]):
        with openai.OpenAI(base_url=provider.base_url, api_key="k") as client:
            attach(client, callbacks=[two])
            client.chat.completions.create(model="m", messages=QUESTION)
        assert [count_of(urls[0], one), count_of(urls[1], two)] == [1, 1]


def test_recorders_own_models_are_not_recorded_once_more(
    url: str, history: ChatHistoryCallback, provider: LoopbackProvider
) -> None:
    """Streamed or not, synchronous or not: the model itself reports its run, if it has a handler."""
    model = ChatOpenAI(base_url=provider.base_url, api_key="k", callbacks=[history])

    async def story() -> None:
        await model.ainvoke("Hi")
        async for _ in model.astream("Hi"):
            pass

    with attach(callbacks=[history]):
        model.invoke("Hi")
        for _ in model.stream("Hi"):
            pass
        asyncio.run(story())
    assert count_of(url, history) == 4


def test_a_replay_is_not_recorded(url: str, history: ChatHistoryCallback, provider: LoopbackProvider) -> None:
    """A client that answers from a recording asks no model."""
    with attach(callbacks=[history]), openai.OpenAI(base_url=provider.base_url, api_key="k") as client:
        client.chat.completions.create(model="m", messages=QUESTION)
        history.flush().wait()
        with Replay(url) as replay, openai.OpenAI(api_key="k", http_client=replay.http_client()) as replayed:
            answer = replayed.chat.completions.create(model="m", messages=QUESTION)
            assert answer.choices[0].message.content == "Hello there!"
    assert count_of(url, history) == 1


PROGRAM = """
import recorder, sys
recorder.attach()
assert not {"openai", "httpx", "httpx2", "sqlalchemy"} & set(sys.modules)
import openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="k")
client.models.list()
assert "sqlalchemy" not in sys.modules
answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
print(answer.choices[0].message.content)
"""


def test_the_default_recorder_is_opened_at_the_first_model_call(
    tmp_path: Path, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database is that of `RECORDER_URL`. No library is imported that the program does not use."""
    monkeypatch.setenv("RECORDER_URL", f"sqlite:///{tmp_path / 'default.db'}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, provider.base_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("Hello there!\n", "", 0)
    assert sql(f"sqlite:///{tmp_path / 'default.db'}", "SELECT status FROM runs") == [("complete",)]


def test_a_default_database_that_cannot_be_used_is_reported_once(
    tmp_path: Path, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program goes on as if it were not recorded."""
    (tmp_path / "other.db").write_text("no database")
    monkeypatch.setenv("RECORDER_URL", f"sqlite:///{tmp_path / 'other.db'}")
    program = (
        PROGRAM + "client.chat.completions.create(model='m', messages=[{'role': 'user', 'content': 'Hi'}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, provider.base_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.returncode) == ("Hello there!\n", 0)
    assert done.stderr.count("A model call is not recorded") == 1


def test_a_process_without_handlers_and_hosts_costs_nothing(provider: LoopbackProvider) -> None:
    """After `detach` the classes pass every request through, and know no sender."""
    from recorder.instrumentation import process_recordings

    attach().detach()
    assert process_recordings.recordings() == ()
    body: Any = httpx.post(f"{provider.base_url}/chat/completions", json=BODY).json()
    assert body["choices"][0]["message"]["content"] == "Hello there!"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_was_forked_while_the_recorder_was_opened_is_not_blocked(tmp_path: Path) -> None:
    """Another thread held the lock, which nobody releases in the child."""
    code = """
import os, threading
from recorder.instrumentation import attachment, default_history, process, process_recordings
held = threading.Event()
def hold():
    with process._lock, process_recordings._lock, attachment._lock, default_history._opening, default_history._choosing:
        held.set()
        threading.Event().wait(60)
threading.Thread(target=hold, daemon=True).start()
held.wait()
if (child := os.fork()) == 0:
    attachment.attach().detach()
    default_history.default_history().close()
    with attachment._lock:
        os._exit(0)
for _ in range(100):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        os._exit(os.waitstatus_to_exitcode(status))
    threading.Event().wait(0.1)
os.kill(child, 9)
os._exit(1)
"""
    environment = {**os.environ, "RECORDER_URL": new_url(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=60, check=False)
    assert ended.returncode == 0
