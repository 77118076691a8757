"""A client that was cut comes back for the rest of the provider's response, byte for byte."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.testing import Answer, LoopbackProvider
from tests.oracle import begin, finish, new_url, say, sql
from tests.server.proxy.calls import (
    ASK,
    CHAT,
    Stepwise,
    client,
    read_until_cut,
    wait_for,
)
from tests.server.proxy.proxying import RawUpstream, proxying
from tests.server.serving import CLIENT, TOKEN, serving

RESUMABLE = {"x-recorder-resumable": "true"}
ANNA = "a-token-for-anna"


def leave(address: str, steps: Stepwise, headers: dict[str, str], count: int = 3) -> tuple[str, bytes]:
    """Begin a call, read some frames and leave; return the run's id and what was read."""
    steps.step(count)
    least = len(b"".join(steps.sent[:count]))
    with CLIENT.stream(
        "POST", f"{address}/openai{CHAT}", json={**ASK, "stream": True}, headers=headers
    ) as found:
        chunks, received = found.iter_raw(), b""
        while len(received) < least:
            received += next(chunks)
        return found.headers["x-recorder-run"], received


def test_a_resumable_call_goes_on_and_its_client_gets_the_rest(database: str) -> None:
    """Live from the offset on, then from any offset; also by another server process's database."""
    steps = Stepwise()
    complete = b"".join(steps.sent) + b"data: [DONE]\n\n"
    with RawUpstream({CHAT: steps}) as upstream, proxying(database, {"openai": upstream.url}) as proxy:
        run_id, received = leave(proxy.url, steps, RESUMABLE)
        path = f"/runs/{run_id}/response"
        with CLIENT.stream("GET", f"{proxy.url}{path}?offset={len(received)}") as rest:
            assert (rest.status_code, rest.headers["x-recorder-run"]) == (200, run_id)
            assert rest.headers["content-type"] == "text/event-stream; charset=utf-8"
            steps.step(17)
            assert received + rest.read() == complete
        assert not upstream.requests[0].closed.is_set()
        wait_for(proxy.stored(), "SELECT status, token_count FROM runs", [("complete", 20)])
    with serving(database) as other:
        seed = random.randrange(10**6)
        print(f"seed {seed}")
        for offset in [0, len(complete), *random.Random(seed).sample(range(len(complete)), 8)]:
            assert CLIENT.get(f"{other.url}{path}?offset={offset}").content == complete[offset:]
        behind = CLIENT.get(f"{other.url}{path}?offset={len(complete) + 1}")
        assert (behind.status_code, behind.headers["content-type"]) == (416, "application/problem+json")
        assert CLIENT.get(f"{other.url}{path}?offset=-1").status_code == 422


def test_a_reader_from_the_first_byte_follows_the_call(database: str) -> None:
    """It may come while nothing is there yet."""
    steps = Stepwise()
    with RawUpstream({CHAT: steps}) as upstream, proxying(database, {"openai": upstream.url}) as proxy:
        run_id, _ = leave(proxy.url, steps, RESUMABLE, count=1)
        found: list[bytes] = []
        reader = threading.Thread(
            target=lambda: found.append(CLIENT.get(f"{proxy.url}/runs/{run_id}/response").content)
        )
        reader.start()
        steps.step(19)
        reader.join(20)
        assert found == [b"".join(steps.sent) + b"data: [DONE]\n\n"]


def test_a_genuine_sdk_repeats_its_call_with_the_run(database: str) -> None:
    """It gets the response from its first byte on, and the provider gets no second request."""
    steps = Stepwise()
    with RawUpstream({CHAT: steps}) as upstream, proxying(database, {"openai": upstream.url}) as proxy:
        run_id, _ = leave(proxy.url, steps, RESUMABLE)
        events = client(proxy.url).chat.completions.create(
            **ASK, stream=True, extra_headers={"x-recorder-run": run_id}
        )
        steps.step(17)
        texts = [event.choices[0].delta.content for event in events]
        assert texts == [f"{number} " for number in range(20)]
        assert len(upstream.requests) == 1


def test_calls_that_are_not_streamed_and_errors_come_again_with_their_status(tmp_path: Path) -> None:
    """An SDK sees the same answer, and the same error."""
    answers: Iterator[Answer | str] = iter(["Hello.", Answer.error(429, "Slow down.")])
    url = new_url(tmp_path)
    with (
        LoopbackProvider(lambda body, path: next(answers)) as provider,
        proxying(url, {"openai": provider.url}) as proxy,
    ):
        calls = client(proxy.url).chat.completions
        raw = calls.with_raw_response.create(**ASK)
        again = {"x-recorder-run": raw.headers["x-recorder-run"]}
        assert calls.create(**ASK, extra_headers=again) == raw.parse()
        with pytest.raises(openai.RateLimitError) as first:
            calls.create(**ASK)
        again = {"x-recorder-run": first.value.response.headers["x-recorder-run"]}
        with pytest.raises(openai.RateLimitError) as second:
            calls.create(**ASK, extra_headers=again)
        assert str(second.value) == str(first.value)
        assert len(provider.requests) == 2


def test_without_the_header_nothing_goes_on(tmp_path: Path) -> None:
    """The rest is what came before the client left, and the response has no end."""
    steps = Stepwise()
    with (
        RawUpstream({CHAT: steps}) as upstream,
        proxying(new_url(tmp_path), {"openai": upstream.url}) as proxy,
    ):
        run_id, received = leave(proxy.url, steps, {})
        assert upstream.requests[0].closed.wait(10)
        steps.step()
        with CLIENT.stream("GET", f"{proxy.url}/runs/{run_id}/response") as found:
            assert read_until_cut(found) == (received, True)


def test_a_call_that_is_no_models_cannot_be_resumed(tmp_path: Path) -> None:
    """It has no run; it ends with its client as any other."""
    with (
        RawUpstream({"/v1/files": [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]}) as upstream,
        proxying(new_url(tmp_path), {"openai": upstream.url}) as proxy,
    ):
        found = CLIENT.get(f"{proxy.url}/openai/v1/files", headers=RESUMABLE)
        assert (found.status_code, "x-recorder-run" in found.headers) == (200, False)


def test_a_resumable_call_has_a_longest_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it the upstream is left, and the run is cancelled."""
    monkeypatch.setattr("recorder.server.proxy.exchange.DETACHED_FOR", 0.1)
    steps = Stepwise()
    with (
        RawUpstream({CHAT: steps}) as upstream,
        proxying(new_url(tmp_path), {"openai": upstream.url}) as proxy,
    ):
        leave(proxy.url, steps, RESUMABLE)
        assert upstream.requests[0].closed.wait(10)
        steps.step()
        wait_for(proxy.stored(), "SELECT status FROM runs", [("cancelled",)])


def test_a_run_of_another_user_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its path nor by the header."""
    monkeypatch.setattr("recorder.server.proxy.run_response._STORED_WITHIN", 0.2)
    tokens = {ANNA: "anna", TOKEN: None}
    with (
        LoopbackProvider() as provider,
        proxying(new_url(tmp_path), {"openai": provider.url}, tokens) as proxy,
    ):
        sdk = client(proxy.url, default_headers={"x-recorder-token": TOKEN, "x-recorder-user": "bob"})
        run_id = sdk.chat.completions.with_raw_response.create(**ASK).headers["x-recorder-run"]
        proxy.stored()
        path = f"{proxy.url}/runs/{run_id}/response"
        assert CLIENT.get(path).status_code == 401
        statuses = [
            CLIENT.get(path, headers={"authorization": f"Bearer {token}"}).status_code
            for token in (ANNA, TOKEN)
        ]
        assert statuses == [404, 200]
        headers = {"x-recorder-token": ANNA, "x-recorder-run": run_id}
        assert CLIENT.post(f"{proxy.url}/openai{CHAT}", json=ASK, headers=headers).status_code == 404


def test_runs_without_bytes_are_a_problem(tmp_path: Path) -> None:
    """A run that was recorded from callbacks, an unknown one and rubbish."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, ["Hello"])
        finish(history, run_id, "Hello")
    with serving(url) as server:
        for id, status in [(run_id, 409), (uuid4(), 404), ("x", 404), ("%00", 404)]:
            found = CLIENT.get(f"{server.url}/runs/{id}/response")
            assert (found.status_code, found.headers["content-type"]) == (
                status,
                "application/problem+json",
            ), id


def test_a_run_that_misses_bytes_is_cut(tmp_path: Path) -> None:
    """What is stored comes, and the client sees that it is not all."""
    url = new_url(tmp_path)
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}) as proxy:
        found = CLIENT.post(f"{proxy.url}/openai{CHAT}", json={**ASK, "stream": True})
        run_id = found.headers["x-recorder-run"]
        proxy.stored()
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            file.execute("INSERT INTO gaps (run_id, seq, count, reason) VALUES (?, 0, 0, 'full')", (run_id,))
            file.commit()
        with CLIENT.stream("GET", f"{proxy.url}/runs/{run_id}/response") as rest:
            assert read_until_cut(rest) == (found.content, True)


def test_readers_that_wait_for_a_first_byte_end_with_their_client_and_with_the_server(tmp_path: Path) -> None:
    """The first one is forgotten, the second one gets a 503."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        history.flush().wait(10)
        with serving(url) as server:
            path = f"{server.url}/runs/{run_id}/response"
            with pytest.raises(httpx.ReadTimeout):
                CLIENT.get(path, timeout=0.3)
            found: list[httpx.Response] = []
            reader = threading.Thread(target=lambda: found.append(CLIENT.get(path)))
            reader.start()
            while CLIENT.get(f"{server.url}/healthz").json()["followers"] != 1:
                pass
            server.server.stop()
            reader.join(10)
        assert [each.status_code for each in found] == [503]


def test_readers_end_when_the_server_does(tmp_path: Path) -> None:
    """In order, though their run goes on; so they come back to another process."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        frame: Any = b"data: " + json.dumps({"choices": []}).encode() + b"\n\n"
        run_id = begin(history)
        history.on_stream_frame(frame, 1, [], run_id=run_id)
        history.flush().wait(10)
        wait_for(url, "SELECT count(*) FROM frames", [(1,)])
        with serving(url) as server, CLIENT.stream("GET", f"{server.url}/runs/{run_id}/response") as found:
            assert next(found.iter_raw()) == frame
            server.server.stop()
    assert sql(url, "SELECT status FROM runs") == [("interrupted",)]
