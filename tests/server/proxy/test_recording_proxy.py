"""Calls through the proxy are recorded as those of an attached client, and served whatever happens to the recorder."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from fastapi import FastAPI

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server import create_app
from recorder.server.proxy.upstream_client import UpstreamClient
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, song
from tests.oracle import new_url, sql
from tests.server.proxy.calls import (
    ASK,
    CHAT,
    OPENING,
    Stepwise,
    client,
    frame,
    locked,
    piece,
    read_until_cut,
    wait_for,
)
from tests.server.proxy.proxying import KEY, RawUpstream, chunked, proxying
from tests.server.serving import CLIENT, TOKEN, serving_processes
from tests.server.test_app import running

ANNA, BOB = "a-token-for-anna", "a-token-for-bob-b"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a new database."""
    return new_url(tmp_path)


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_a_call_is_recorded_with_what_its_headers_name(database: str) -> None:
    """Conversation, user, request, reply, usage and host are stored, and the response has the run's id."""
    with LoopbackProvider() as provider, proxying(database, {"openai": provider.url}) as proxy:
        headers = {"x-recorder-conversation": "a talk", "x-recorder-user": "anna"}
        raw = client(proxy.url).chat.completions.with_raw_response.create(**ASK, extra_headers=headers)
        proxy.stored()
        assert raw.parse().choices[0].message.content == song()
    columns = "r.id, r.conversation_id, c.user_id, r.status, r.request_model, r.wire"
    [row] = sql(database, f"SELECT {columns} FROM runs r JOIN conversations c ON c.id = r.conversation_id")
    assert tuple(row) == (
        raw.headers["x-recorder-run"],
        "a talk",
        "anna",
        "complete",
        "gpt-4o",
        "openai.chat",
    )
    roles = sql(database, "SELECT role FROM messages ORDER BY created_at, id")
    assert [role for (role,) in roles] == ["user", "assistant"]


def test_a_conversation_without_a_name_is_found_by_its_history(url: str) -> None:
    """The second question of a client that names nothing is stored below the first one."""
    with (
        LoopbackProvider("Hello.") as provider,
        proxying(url, {"openai": provider.url}, thread="history") as proxy,
    ):
        sdk, messages = client(proxy.url), list(ASK["messages"])
        for question in ("And now?", "And then?"):
            reply = sdk.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message
            messages += [
                {"role": "assistant", "content": reply.content},
                {"role": "user", "content": question},
            ]
        proxy.stored()
    assert [tuple(row) for row in sql(url, "SELECT count(*), count(DISTINCT conversation_id) FROM runs")] == [
        (2, 1)
    ]


def test_the_attempts_of_a_call_are_counted(url: str) -> None:
    """Two failures and an answer are three attempts of one call; a later call is a new one."""
    answers = iter(
        [
            Answer.error(429, headers={"retry-after-ms": "1"}),
            Answer.error(500, headers={"retry-after-ms": "1"}),
        ]
    )
    with (
        LoopbackProvider(lambda body, path: next(answers, "Here.")) as provider,
        proxying(url, {"openai": provider.url}) as proxy,
    ):
        for _ in range(2):
            client(proxy.url, max_retries=3).chat.completions.create(**ASK)
        proxy.stored()
    query = "SELECT id, attempt, json_extract(metadata, '$.first_run_id'), status FROM runs ORDER BY started_at, id"
    found = sql(url, query)
    first = found[0][0]
    assert [tuple(row)[1:] for row in found] == [
        (1, None, "error"), (2, first, "error"), (3, first, "complete"), (1, None, "complete")
    ]  # fmt: skip


def test_an_upstream_with_a_wire_format_is_recorded_on_any_path(url: str) -> None:
    """Without one, a path that recorder does not know only passes."""
    frames = b"".join(openai_chat_frames(["Hi"]))
    with RawUpstream({"/invoke": chunked(frames, "content-type: text/event-stream")}) as upstream:
        table = {"known": {"base_url": upstream.url, "wire": "openai.chat"}, "unknown": upstream.url}
        with proxying(url, table) as proxy:
            for name in table:
                found = CLIENT.post(f"{proxy.url}/{name}/invoke", json={**ASK, "stream": True})
                assert (found.content, "x-recorder-run" in found.headers) == (frames, name == "known")
            proxy.stored()
    assert [row[0] for row in sql(url, "SELECT status FROM runs")] == ["complete"]


def test_large_requests_and_redacted_ones_are_recorded(url: str) -> None:
    """A body of 5 MB passes, and with `redact=` nothing of a card number is stored."""
    card = "4242 4242 4242 4242"
    with (
        LoopbackProvider(f"Your card {card} is good.") as provider,
        proxying(url, {"anthropic": provider.url}, redact=["card"]) as proxy,
    ):
        question: Any = [{"role": "user", "content": f"{card} " + "x" * 5_000_000}]
        with (
            anthropic.Anthropic(base_url=f"{proxy.url}/anthropic", api_key=KEY, max_retries=0) as sdk,
            sdk.messages.stream(model="claude-haiku-5-5", max_tokens=9, messages=question) as stream,
        ):
            assert "".join(stream.text_stream) == f"Your card {card} is good."
        proxy.stored()
    assert [row[0] for row in sql(url, "SELECT status FROM runs")] == ["complete"]
    contents = [row[0] for row in sql(url, "SELECT content FROM messages")]
    assert len(contents) == 2
    assert not any("4242" in each for each in contents)


# -- the recorder's database is away ----------------------------------------------------------------------------------


def test_clients_are_served_while_the_database_is_away(tmp_path: Path) -> None:
    """No database from the beginning: calls pass, streamed and not, and the server says what it cannot read."""
    url = "postgresql://nobody:no-password@127.0.0.1:1/nothing"
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}, open_timeout=0.1) as proxy:
        sdk = client(proxy.url)
        assert sdk.chat.completions.create(**ASK).choices[0].message.content == song()
        events = list(sdk.chat.completions.create(**ASK, stream=True))
        assert "".join(event.choices[0].delta.content or "" for event in events) == song()
        assert CLIENT.get(f"{proxy.url}/conversations").status_code == 503
        proxy.history.close(0.1).wait(10)


def test_the_command_starts_without_its_database() -> None:
    """It says so, and serves."""
    with LoopbackProvider() as provider:
        options = ("--proxy", "--upstream", f"openai={provider.url}")
        with serving_processes("postgresql://nobody:no-password@127.0.0.1:1/nothing", 1, *options) as [
            (_, address)
        ]:
            assert client(address).chat.completions.create(**ASK).choices[0].message.content == song()


def test_what_came_while_the_database_was_locked_is_stored_later(url: str) -> None:
    """The client does not notice it."""
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}) as proxy:
        with locked(url):
            for _ in range(3):
                assert client(proxy.url).chat.completions.create(**ASK).choices[0].message.content == song()
        proxy.stored()
    assert [row[0] for row in sql(url, "SELECT status FROM runs")] == ["complete"] * 3


def test_a_full_queue_costs_the_record_and_not_the_client(url: str) -> None:
    """The bytes are all there; the run has a gap."""
    answer = Answer(frames=openai_chat_frames(["word "] * 2_000))
    with (
        LoopbackProvider(answer) as provider,
        proxying(url, {"openai": provider.url}, overflow="drop_newest", max_queue_bytes=60_000) as proxy,
    ):
        with locked(url):
            found = CLIENT.post(f"{proxy.url}/openai{CHAT}", json={**ASK, "stream": True})
        assert found.content == b"".join(answer.frames or ())
        proxy.stored()
    assert [tuple(row) for row in sql(url, "SELECT status, (SELECT count(*) FROM gaps) FROM runs")] == [
        ("interrupted", 1)
    ]


def test_a_closed_history_records_nothing_and_serves(url: str) -> None:
    """The calls pass."""
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}) as proxy:
        assert client(proxy.url).chat.completions.create(**ASK).choices[0].message.content == song()
        proxy.history.close().wait(10)
        assert client(proxy.url).chat.completions.create(**ASK).choices[0].message.content == song()
    assert len(sql(url, "SELECT id FROM runs")) == 1


# -- clients and upstreams that go away --------------------------------------------------------------------------------


def test_a_client_that_leaves_cancels_its_call(url: str) -> None:
    """The upstream's connection is closed, and the run is cancelled with what came."""
    steps = Stepwise()
    with RawUpstream({CHAT: steps}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        steps.step(3)
        with CLIENT.stream("POST", f"{proxy.url}/openai{CHAT}", json={**ASK, "stream": True}) as found:
            chunks = found.iter_raw()
            received = b""
            while len(received) < len(b"".join(steps.sent[:3])):
                received += next(chunks)
        assert upstream.requests[0].closed.wait(10)
        steps.step()  # its thread ends
        wait_for(proxy.stored(), "SELECT status, token_count FROM runs", [("cancelled", 3)])


def test_a_client_that_leaves_before_the_answer_cancels_its_call(url: str) -> None:
    """Also while the model thinks."""
    steps = Stepwise(thinks=True)
    with RawUpstream({CHAT: steps}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        with suppress(httpx.ReadTimeout):
            CLIENT.post(f"{proxy.url}/openai{CHAT}", json=ASK, timeout=0.3)
        assert upstream.requests[0].closed.wait(10)
        steps.step()  # its thread ends
        wait_for(proxy.stored(), "SELECT status FROM runs", [("cancelled",)])


def test_an_upstream_that_cannot_be_reached_is_a_problem(url: str) -> None:
    """502 names the upstream, and not its address; SDKs show it. The run has failed as the SDK would say."""
    with RawUpstream({"/nonsense": [b"HTTP/1.1 what\r\n\r\n", None], "/nothing": [None]}) as upstream:
        table = {"gone": "http://127.0.0.1:1", "openai": upstream.url}
        with proxying(url, table) as proxy:
            for path in (f"/gone{CHAT}", "/openai/nonsense", "/openai/nothing"):
                found = CLIENT.post(proxy.url + path, json=ASK)
                assert (found.status_code, found.json()["status"]) == (502, 502), path
                assert found.headers["content-type"] == "application/problem+json"
                assert "127.0.0.1" not in found.text
            with pytest.raises(openai.InternalServerError, match="The upstream gone cannot be reached"):
                client(proxy.url, "gone").chat.completions.create(**ASK)
            proxy.stored()
    kinds = {tuple(row) for row in sql(url, "SELECT status, error_type FROM runs")}
    assert kinds == {("error", "openai.APIConnectionError")}


def test_an_upstream_that_is_silent_is_a_504(url: str) -> None:
    """Before its head; after it, the client is cut as by the upstream."""

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    with (
        RawUpstream({CHAT: silent, "/stream": Stepwise()}) as upstream,
        proxying(url, {"openai": upstream.url}, client=lambda: UpstreamClient(silent_for=0.2)) as proxy,
    ):
        found = CLIENT.post(f"{proxy.url}/openai{CHAT}", json=ASK)
        assert (found.status_code, found.headers["content-type"]) == (504, "application/problem+json")
        with pytest.raises(httpx.RemoteProtocolError):
            CLIENT.post(f"{proxy.url}/openai/stream", json=ASK)
        proxy.stored()
    assert [row[0] for row in sql(url, "SELECT error_type FROM runs")] == ["openai.APITimeoutError"]


@pytest.mark.parametrize("cut", ["in a chunk", "between chunks", "before the length"])
def test_an_upstream_that_is_cut_cuts_the_client(url: str, cut: str) -> None:
    """The response is no complete one, and has the bytes that came; the run has failed with them."""
    sent = piece(frame("Hel")) + piece(frame("lo"))
    answers: dict[str, list[bytes | None]] = {
        "in a chunk": [OPENING, sent, b"ff\r\nda", None],
        "between chunks": [OPENING, sent, None],
        "before the length": [
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n",
            frame("Hel") + frame("lo"), None,
        ],
    }  # fmt: skip
    with RawUpstream({CHAT: answers[cut]}) as upstream, proxying(url, {"openai": upstream.url}) as proxy:
        with CLIENT.stream("POST", f"{proxy.url}/openai{CHAT}", json={**ASK, "stream": True}) as found:
            received, is_cut = read_until_cut(found)
        proxy.stored()
    assert is_cut
    assert received.startswith(frame("Hel") + frame("lo"))
    found_rows = sql(url, "SELECT status, error_type, token_count FROM runs")
    assert [tuple(row) for row in found_rows] == [("error", "openai.APIConnectionError", 2)]


# -- who may use it ---------------------------------------------------------------------------------------------------


def test_a_token_comes_in_a_header_or_in_the_path(url: str) -> None:
    """The provider gets neither. The calls are recorded for the token's user."""
    tokens = {ANNA: "anna", TOKEN: None}
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}, tokens) as proxy:
        client(proxy.url, default_headers={"x-recorder-token": ANNA}).chat.completions.create(**ASK)
        client(f"{proxy.url}/t/{ANNA}").chat.completions.create(**ASK)
        named = {"x-recorder-token": TOKEN, "x-recorder-user": "carl"}
        client(proxy.url, default_headers=named).chat.completions.create(**ASK)
        proxy.stored()
        for request in provider.requests:
            assert request["headers"]["authorization"] == f"Bearer {KEY}"
            assert ANNA not in str(request)
            assert TOKEN not in str(request)
        assert {request["path"] for request in provider.requests} == {CHAT}
    assert sorted(row[0] for row in sql(url, "SELECT user_id FROM conversations")) == ["anna", "anna", "carl"]


def test_nobody_passes_without_a_token(url: str) -> None:
    """None, a wrong one, two of them, and the provider's key are 401; another user is 403."""
    tokens = {ANNA: "anna", BOB: "bob"}
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}, tokens) as proxy:
        cases: list[tuple[str, Any, int]] = [
            ("", {}, 401), ("", {"x-recorder-token": "wrong-wrong-wrong"}, 401),
            ("", {"authorization": f"Bearer {ANNA}"}, 401), ("/t/wrong-wrong-wrong", {}, 401),
            (f"/t/{BOB}", {"x-recorder-token": ANNA}, 401),
            ("", [("x-recorder-token", ANNA), ("x-recorder-token", BOB)], 401),
            (f"/t/{ANNA}", {"x-recorder-user": "bob"}, 403), (f"/t/{ANNA}", {"origin": "https://evil.example"}, 403),
        ]  # fmt: skip
        for prefix, headers, status in cases:
            found = CLIENT.post(f"{proxy.url}{prefix}/openai{CHAT}", json=ASK, headers=headers)
            assert (found.status_code, found.json()["status"]) == (status, status), (prefix, headers)
        assert provider.requests == []
        proxy.stored()
    assert sql(url, "SELECT id FROM runs") == []


def test_without_tokens_only_names_of_this_machine_are_answered(url: str) -> None:
    """A page that was reached by DNS rebinding names another host."""
    with LoopbackProvider() as provider, proxying(url, {"openai": provider.url}) as proxy:
        found = CLIENT.post(f"{proxy.url}/openai{CHAT}", json=ASK, headers={"host": "evil.example"})
        assert found.status_code == 403
        assert provider.requests == []


# -- the end of the server --------------------------------------------------------------------------------------------


def test_sigterm_lets_short_calls_end_and_cuts_long_ones(tmp_path: Path) -> None:
    """The exit code is 0, and the call that was cut is interrupted."""
    short, long = Stepwise(), Stepwise()
    url = f"sqlite:///{tmp_path / 'new.db'}"  # the proxy makes the file
    with RawUpstream({CHAT: short, f"/long{CHAT}": long}) as upstream:
        options = ("--proxy", "--upstream", f"here={upstream.url}", "--drain-within", "1")
        with serving_processes(url, 1, *options) as [(process, address)]:
            short.step(1)
            long.step(2)
            with (
                CLIENT.stream("POST", f"{address}/here{CHAT}", json={**ASK, "stream": True}) as first,
                CLIENT.stream("POST", f"{address}/here/long{CHAT}", json={**ASK, "stream": True}) as second,
            ):
                chunks = first.iter_raw(), second.iter_raw()
                assert all(next(each) for each in chunks)
                process.send_signal(signal.SIGTERM)
                short.step(19)
                assert b"[DONE]" in b"".join(chunks[0])
                with pytest.raises(httpx.RemoteProtocolError):
                    b"".join(chunks[1])
            long.step()  # its thread ends
            assert process.wait(10) == 0
    statuses = sql(url, "SELECT status, token_count FROM runs ORDER BY token_count")
    assert [tuple(row) for row in statuses] == [("interrupted", 2), ("complete", 20)]


def test_the_configuration_names_upstreams(tmp_path: Path) -> None:
    """It replaces the address of a provider, and the command line has the last word."""
    with LoopbackProvider() as provider:
        tables = f'[upstreams.openai]\nbase_url = "{provider.url}/"\n[upstreams.mine]\nbase_url = "http://127.0.0.1:9"\n'
        (tmp_path / "recorder.toml").write_text(tables)
        options = (
            "--proxy",
            "--config",
            str(tmp_path / "recorder.toml"),
            "--upstream",
            f"mine={provider.url}",
        )
        with serving_processes(url := new_url(tmp_path), 1, *options) as [(process, address)]:
            for name in ("openai", "mine"):
                calls = openai.OpenAI(
                    base_url=f"{address}/{name}/v1", api_key="any", max_retries=0
                ).chat.completions
                assert calls.create(**ASK).choices[0].message.content == song()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert len(sql(url, "SELECT id FROM runs")) == 2


def test_an_application_can_have_the_proxy(tmp_path: Path) -> None:
    """`create_app(history, upstreams=...)`, mounted below a path of the application."""
    with LoopbackProvider() as provider, ChatHistoryCallback(new_url(tmp_path)) as history:
        app = FastAPI()
        app.mount("/a path", create_app(history, upstreams={"openai": provider.url}))
        with running(app) as address:
            calls = client(f"{address}/a%20path").chat.completions
            assert calls.create(**ASK).choices[0].message.content == song()
            history.close().wait(10)
        assert len(sql(history.recorder.url, "SELECT id FROM runs")) == 1
