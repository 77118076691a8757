"""A model call that a library repeats after a failure is a further attempt of the same run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from recorder import ChatHistoryCallback, attach
from recorder.testing import Answer, LoopbackProvider, scripted
from tests.oracle import new_url, sql

PATH = "/v1/chat/completions"
#: The status and the attempt of a call that fails, and of its repetition.
FAILED, REPEATED, NEW = ("error", 1), ("complete", 2), ("complete", 1)


class Scene:
    """A provider whose first answer is an error, and a recorder."""

    def __init__(self, provider: LoopbackProvider, url: str, history: ChatHistoryCallback) -> None:
        self.provider = provider
        self._url = url
        self.history = history

    def conversations(self) -> list[str]:
        """Return the conversation of each run."""
        self.history.flush().wait()
        return [name for (name,) in sql(self._url, "SELECT conversation_id FROM runs ORDER BY started_at")]

    def runs(self) -> list[tuple[str, int]]:
        """Return the status and the attempt of each run, in the order in which they began."""
        self.history.flush().wait()
        return sql(self._url, "SELECT status, attempt FROM runs ORDER BY started_at, attempt")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Yield a scene whose recorder is closed afterwards."""
    url = new_url(tmp_path)
    script = scripted(Answer.error(429), "Here I am.")
    with LoopbackProvider(script) as provider, ChatHistoryCallback(url) as history:
        yield Scene(provider, url, history)


def body(question: str) -> dict[str, Any]:
    """Return the body of a model call."""
    return {"model": "m", "messages": [{"role": "user", "content": question}]}


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_same_request_object_is_recorded_each_time(library: Any, scene: Scene) -> None:
    """Mistral's SDK sends its request again when the provider is busy."""
    with library.Client(base_url=scene.provider.url) as client:
        attach(client, callbacks=scene.history)
        request = client.build_request("POST", PATH, json=body("Is anybody there?"))
        assert [client.send(request).status_code for _ in range(2)] == [429, 200]
    assert scene.runs() == [FAILED, REPEATED]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_same_request_object_is_recorded_each_time_on_an_event_loop(library: Any, scene: Scene) -> None:
    """As on a thread."""

    async def call() -> list[int]:
        async with library.AsyncClient(base_url=scene.provider.url) as client:
            attach(client, callbacks=scene.history)
            request = client.build_request("POST", PATH, json=body("Is anybody there, on a loop?"))
            return [(await client.send(request)).status_code for _ in range(2)]

    assert asyncio.run(call()) == [429, 200]
    assert scene.runs() == [FAILED, REPEATED]


def test_a_client_and_the_process_record_a_repetition_once(scene: Scene) -> None:
    """While a request is sent, its second recording is left out; this ends with the answer."""
    with httpx.Client(base_url=scene.provider.url) as client, attach(callbacks=scene.history):
        attach(client, callbacks=scene.history)
        request = client.build_request("POST", PATH, json=body("Who records this?"))
        assert [client.send(request).status_code for _ in range(2)] == [429, 200]
    assert scene.runs() == [FAILED, REPEATED]


def test_a_repeated_request_object_has_its_names_each_time(scene: Scene, tmp_path: Path) -> None:
    """For two recorders; the provider gets no such header."""
    url = new_url(tmp_path, "other.db")
    with ChatHistoryCallback(url) as other, attach(callbacks=other):
        with httpx.Client(base_url=scene.provider.url) as client:
            attach(client, callbacks=scene.history)
            headers = {"x-recorder-conversation": "mine"}
            request = client.build_request("POST", PATH, json=body("Whose is it?"), headers=headers)
            for _ in range(2):
                client.send(request)
        second = Scene(scene.provider, url, other)
        assert scene.conversations() == second.conversations() == ["mine", "mine"]
    assert not any("x-recorder-conversation" in each["headers"] for each in scene.provider.requests)


def test_a_repetition_is_one_for_each_of_two_recorders(scene: Scene, tmp_path: Path) -> None:
    """One records the client, the other the process."""
    url = new_url(tmp_path, "other.db")
    with ChatHistoryCallback(url) as other, attach(callbacks=other):
        with httpx.Client(base_url=scene.provider.url) as client:
            attach(client, callbacks=scene.history)
            for _ in range(2):
                client.post(PATH, json=body("Who records what?"))
        second = Scene(scene.provider, url, other)
        assert scene.runs() == second.runs() == [FAILED, REPEATED]


def test_an_equal_request_after_a_failure_is_a_further_attempt(scene: Scene) -> None:
    """LiteLLM and instructor make a new request, without a header that counts."""
    with httpx.Client(base_url=scene.provider.url) as client:
        attach(client, callbacks=scene.history)
        for _ in range(2):
            client.post(PATH, json=body("Once more?"))
    assert scene.runs() == [FAILED, REPEATED]


def test_another_request_after_a_failure_is_a_new_call(scene: Scene) -> None:
    """It has another question."""
    with httpx.Client(base_url=scene.provider.url) as client:
        attach(client, callbacks=scene.history)
        for question in ("This one?", "Or this one?"):
            client.post(PATH, json=body(question))
    assert scene.runs() == [FAILED, NEW]


def test_a_body_that_is_not_read_is_a_new_call(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether it equals the one before it."""
    monkeypatch.setattr("recorder.instrumentation.model_calls.MAX_BODY", 10)
    with httpx.Client(base_url=scene.provider.url) as client:
        attach(client, callbacks=scene.history)
        for question in ("A long one?", "Another long one?"):
            client.post(PATH, json=body(question))
    assert scene.runs() == [FAILED, NEW]


def test_an_equal_request_after_an_answer_is_a_new_call(scene: Scene) -> None:
    """Nobody repeats what was answered."""
    with httpx.Client(base_url=scene.provider.url) as client:
        attach(client, callbacks=scene.history)
        for question in ("A first one?", "The same?", "The same?"):
            client.post(PATH, json=body(question))
    assert scene.runs() == [FAILED, NEW, NEW]


def test_an_equal_request_long_after_a_failure_is_a_new_call(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No library waits longer than a minute before it tries again."""
    monkeypatch.setattr("recorder.instrumentation.repetition._LONGEST_PAUSE", -1.0)
    with httpx.Client(base_url=scene.provider.url) as client:
        attach(client, callbacks=scene.history)
        for _ in range(2):
            client.post(PATH, json=body("Still there?"))
    assert scene.runs() == [FAILED, NEW]


def test_a_call_that_reached_nobody_is_repeated(scene: Scene) -> None:
    """Also an error without a response is a failure."""
    with httpx.Client(base_url="http://127.0.0.1:1") as client:
        attach(client, callbacks=scene.history)
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                client.post(PATH, json=body("Nobody?"))
    assert scene.runs() == [FAILED, ("error", 2)]


def test_a_request_that_was_refused_is_not_repeated(tmp_path: Path) -> None:
    """Libraries try again after errors that may pass; a body that is wrong stays wrong."""
    url = new_url(tmp_path)
    with LoopbackProvider(Answer.error(400)) as provider, ChatHistoryCallback(url) as history:
        with httpx.Client(base_url=provider.url) as client:
            attach(client, callbacks=history)
            for _ in range(2):
                client.post(PATH, json=body("Wrong?"))
        assert Scene(provider, url, history).runs() == [FAILED, FAILED]
