"""`create_app(history, authorize=function)`: the application says who sends a request, for every route and stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.server import authorization, create_app
from recorder.testing import LoopbackProvider, MemoryStore
from tests.oracle import new_url, record, sql
from tests.server.serving import CLIENT
from tests.server.test_app import running

ANSWERS: dict[str, Any] = {"anna": "anna", "boris": "boris", "all": None, "nobody": False}


def who(connection: HTTPConnection) -> Any:
    """Return the user in a cookie, as an application does that has sessions."""
    name = connection.cookies.get("session", "nobody")
    if name == "expired":
        raise HTTPException(401, "Log in again", {"www-authenticate": "Cookie"})
    if name == "forbidden":
        raise PermissionError("a secret reason")
    if name == "redirected":
        raise HTTPException(302)
    if name == "broken":
        raise RuntimeError("a secret reason")
    return ANSWERS.get(name, name.encode() if name == "bytes" else "")


async def who_later(connection: HTTPConnection) -> Any:
    """As `who`, after a look into a database."""
    await asyncio.sleep(0)
    return who(connection)


class Sessions:
    """An object whose calls say who it is."""

    async def __call__(self, connection: HTTPConnection) -> Any:
        """As `who`."""
        return who(connection)


@contextmanager
def mounted(url: str, authorize: Callable[..., Any]) -> Iterator[str]:
    """Serve an application with the recordings of a database; yields the address where they are mounted."""
    app = FastAPI()
    app.mount("/recorder", create_app(url, authorize=authorize))
    with running(app) as address:
        yield f"{address}/recorder"


def cookie(name: str) -> dict[str, str]:
    """Return the header of a session."""
    return {"cookie": f"session={name}"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a database with a run of the user "anna", and the id of the run."""
    url = new_url(tmp_path_factory.mktemp("authorization"))
    with ChatHistoryCallback(url) as history, history.conversation("c", user="anna"):
        return url, str(record(history))


def socket_status(url: str, headers: dict[str, str]) -> int:
    """Return the status of a WebSocket's handshake."""
    try:
        with connect(url.replace("http", "ws", 1), additional_headers=headers, proxy=None):
            return 101
    except InvalidStatus as error:
        return int(json.loads(error.response.body or b"{}")["status"])


EXPECTED = {
    "anna": 200, "all": 200, "boris": 404, "nobody": 403, "forbidden": 403, "expired": 401, "redirected": 503,
    "broken": 503, "bytes": 503, "empty": 503,
}  # fmt: skip


@pytest.mark.parametrize("authorize", [who, who_later, Sessions()], ids=["plain", "asynchronous", "object"])
def test_every_route_and_stream_asks_the_application(
    recorded: tuple[str, str], authorize: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal has its status; whatever fails in the function is 503, and its reason is in the log only."""
    url, run_id = recorded
    with mounted(url, authorize) as address, caplog.at_level(logging.ERROR, "recorder"):
        for name, status in EXPECTED.items():
            for path in (f"/streams/{run_id}", f"/runs/{run_id}", "/conversations/c"):
                response = CLIENT.get(address + path, headers=cookie(name))
                assert response.status_code == status, (name, path)
                assert "secret" not in response.text
            expected = 101 if status == 200 else status
            assert socket_status(f"{address}/streams/{run_id}", cookie(name)) == expected, name
        assert CLIENT.get(f"{address}/nothing", headers=cookie("nobody")).status_code == 403
        assert (
            CLIENT.get(f"{address}/streams/x", headers=cookie("expired")).headers["www-authenticate"]
            == "Cookie"
        )
    assert "authorize failed" in caplog.text


def test_any_host_is_answered(recorded: tuple[str, str]) -> None:
    """A page that was rebound sends no cookie of the application; other origins are refused all the same."""
    url, run_id = recorded
    with mounted(url, who) as address:
        target = f"{address}/runs/{run_id}"
        assert CLIENT.get(target, headers={**cookie("anna"), "host": "app.example"}).status_code == 200
        foreign = {**cookie("anna"), "origin": "https://evil.example"}
        assert CLIENT.get(target, headers=foreign).status_code == 403


def test_a_function_that_hangs_is_not_waited_for(
    recorded: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is 503."""
    monkeypatch.setattr(authorization, "ANSWERS_WITHIN", 0.1)

    async def never(connection: HTTPConnection) -> None:
        await asyncio.Event().wait()

    with mounted(recorded[0], never) as address:
        assert CLIENT.get(f"{address}/healthz").status_code == 503


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"store": object()}, "no argument 'store'"),
        ({"authorise": who}, "did you mean 'authorize'?"),
        ({"token": "x"}, "did you mean 'tokens'?"),
        ({"history": 7}, "history is of type int"),
        ({"authorize": "anna"}, "authorize is of type str"),
        ({"authorize": who, "tokens": {"a-long-token-of-anna": "anna"}}, "one of them"),
        ({"tokens": ["a-long-token-of-anna"]}, "tokens is a dict"),
        ({"tokens": {"a-long-token-of-anna": ""}}, "user of a token"),
        ({"tokens": {7: None}}, "A token must have"),
        ({"allowed_hosts": "example.com"}, "allowed_hosts is a list"),
        ({"allowed_origins": [7]}, "allowed_origins is a list"),
        ({"models": ["small"]}, "models is of type list"),
        ({"models": {"small": "gpt"}}, "models['small'] is of type str"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], word: str) -> None:
    """One clear error says what to pass."""
    with pytest.raises(ConfigError) as error:
        create_app(**arguments)
    assert word in str(error.value)


def test_a_history_without_a_url_is_refused() -> None:
    """What is in a store of the application's own cannot be read."""
    with (
        ChatHistoryCallback(store=MemoryStore()) as history,
        pytest.raises(ConfigError, match="store of its own"),
    ):
        create_app(history)


def test_the_history_lives_as_long_as_the_application(tmp_path: Path) -> None:
    """It need not be kept elsewhere."""
    app = create_app(ChatHistoryCallback(new_url(tmp_path)))
    app.state.history.close().wait(10)


def test_calls_through_the_proxy_are_asked_for_too(tmp_path: Path) -> None:
    """A call without a session reaches no provider; one with a session is recorded for its user."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    with LoopbackProvider() as provider, ChatHistoryCallback(new_url(tmp_path)) as history:
        app = FastAPI()
        app.mount("/r", create_app(history, authorize=who, upstreams={"openai": provider.url}))
        with running(app) as address:
            path = f"{address}/r/openai/v1/chat/completions"
            assert CLIENT.post(path, json=body, headers={"authorization": "Bearer sk-any"}).status_code == 403
            assert provider.requests == []
            assert CLIENT.post(path, json=body, headers={"cookie": "session=anna"}).status_code == 200
            history.close().wait(10)
        assert sql(history.recorder.url, "SELECT user_id FROM conversations") == [("anna",)]
