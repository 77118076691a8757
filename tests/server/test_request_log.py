"""A line for each request has its route, status, time, user and run, and nothing else of it."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server import log_output
from recorder.server.log_output import Format, logging_to
from recorder.server.request_log import log as requests
from recorder.testing import LoopbackProvider
from tests.oracle import new_url, record
from tests.server.serving import CLIENT, TOKEN, Served, read, send, serving, small
from tests.server.test_access import socket_status

ANNA = "a-token-of-the-user-anna"


@contextmanager
def logged(folder: Path, format: Format) -> Iterator[tuple[Served, io.BytesIO]]:
    """Yield a server and what it logs."""
    lines = io.BytesIO()
    with (
        LoopbackProvider("A secret answer") as provider,
        logging_to(lines.write, format),
        serving(new_url(folder), {TOKEN: None, ANNA: "anna\nadmin"}, models=[small(provider)]) as server,
    ):
        yield server, lines


def use(server: Served) -> str:
    """Send some requests, all with secrets; returns the id of a run."""
    headers = {"authorization": f"Bearer {ANNA}"}
    response = send(server.url, headers=headers, messages="A secret question", conversation_id="secret-id")
    run_id = response.headers["x-recorder-run"]
    read(server.url, run_id, headers=headers)
    CLIENT.get(f"{server.url}/conversations/secret-id?q=secret-query", headers=headers)
    CLIENT.get(f"{server.url}/secret-path", headers={"authorization": "Bearer secret-token-of-nobody"})
    socket_status(f"{server.url}/streams/{run_id}", subprotocols=["recorder", f"bearer.{ANNA}"])
    return run_id


def test_each_request_is_a_line_of_json(tmp_path: Path) -> None:
    """The route is a template; a refused request has no user."""
    with logged(tmp_path, "json") as (server, lines):
        run_id = use(server)
    found = [json.loads(line) for line in lines.getvalue().decode().splitlines()]
    kept = ("method", "route", "status", "user", "run")
    assert [tuple(each[name] for name in kept) for each in found if each["logger"] == requests.name] == [
        ("POST", "/chat", 200, "anna\nadmin", run_id),
        ("GET", "/streams/{run}", 200, "anna\nadmin", run_id),
        ("GET", "/conversations/{id:text}", 200, "anna\nadmin", None),
        ("GET", "none", 401, None, None),
        ("WEBSOCKET", "/streams/{run}", 101, "anna\nadmin", None),
    ]
    assert all(each["ms"] >= 0 and each["level"] == "INFO" and each["timestamp"] for each in found)
    assert "secret" not in lines.getvalue().decode()
    assert ANNA not in lines.getvalue().decode()


def test_each_request_is_a_line_of_text(tmp_path: Path) -> None:
    """A user's id with a line break stays on one line."""
    with logged(tmp_path, "text") as (server, lines):
        run_id = use(server)
    first, *_ = found = lines.getvalue().decode().splitlines()
    pattern = rf"[-0-9:, ]+ INFO POST /chat 200 [0-9.]+ ms user='anna.*admin' run='{run_id}'"
    assert re.fullmatch(pattern, first), first
    assert len(found) == 5
    assert "secret" not in lines.getvalue().decode()


def test_warnings_are_in_the_same_form(tmp_path: Path) -> None:
    """Also those of the libraries."""
    with logged(tmp_path, "json") as (_, lines):
        logging.getLogger("some.library").warning("careful")
    found = [json.loads(line) for line in lines.getvalue().decode().splitlines()]
    assert [(each["level"], each["message"]) for each in found] == [("WARNING", "careful")]


def test_without_a_format_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The level is as before after the server has ended."""
    with logged(tmp_path, "text"):
        pass
    with (
        ChatHistoryCallback(new_url(tmp_path, "other.db")) as history,
        serving(history.recorder.url) as server,
    ):
        read(server.url, record_of(history))
    assert [each for each in caplog.records if each.name == requests.name] == []


def record_of(history: ChatHistoryCallback) -> object:
    """Return a run that is stored."""
    run_id = record(history)
    history.flush().wait(10)
    return run_id


def test_a_stream_that_nobody_reads_stops_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that find no room are dropped, and a later line counts them."""
    monkeypatch.setattr(log_output, "_MOST_WAITING", 1)
    monkeypatch.setattr(log_output, "_ENDS_WITHIN", 0.01)
    released = threading.Event()
    written: list[str] = []

    def write(line: bytes) -> None:
        released.wait()  # a terminal that is stopped
        written.append(line.decode())

    with logging_to(write, "text"):
        requests.info("line 0")
        for number in range(1, 10):
            requests.info("line %d", number)
        assert written == []
    released.set()
