"""The application by itself and mounted into an application: its errors, its schema, and routes of one's own."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.installation import INSTALL_SERVER
from recorder.server import create_app, resumed_run, stream_response
from recorder.server.serving import listen
from tests.oracle import begin, finish, new_url, record, run_python, say, sql
from tests.server.serving import CLIENT, read, serving


def test_every_error_has_one_form(tmp_path: Path) -> None:
    """An unknown path, method, run and parameter are problems; 405 says what is allowed."""
    with serving(new_url(tmp_path)) as server:
        wrong = [
            ("GET", "/nothing", 404), ("GET", "/../etc/passwd", 404), ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
            ("POST", "/openapi.json", 405), ("DELETE", f"/streams/{uuid.uuid4()}", 405), ("GET", "/docs", 404),
            ("GET", f"/streams/{uuid.uuid4()}", 404), ("GET", "/streams/x%00y", 404), ("GET", "/streams/%ff", 404),
            ("GET", "/streams/x?speed=fast", 422), ("GET", "/streams/x?speed=0", 422),
            ("GET", "/streams/x?max_gap=nan", 422), ("GET", "/streams/x?max_gap=-1", 422),
        ]  # fmt: skip
        for method, path, status in wrong:
            response = CLIENT.request(method, server.url + path)
            assert (response.status_code, response.json()["status"]) == (status, status), path
            assert response.headers["content-type"] == "application/problem+json"
            assert {"type", "title", "detail"} <= response.json().keys()
            assert ("allow" in response.headers) == (status == 405)


def test_a_websocket_that_is_refused_gets_a_problem(tmp_path: Path) -> None:
    """The answer to its request for a connection says why."""
    with serving(new_url(tmp_path)) as server, ChatHistoryCallback(server.database.url) as history:
        run_id = record(history)
        history.flush().wait(10)
        for path, status in [
            ("?speed=fast", 422), ("?starting_after=x", 400), ("?starting_after=5", 400), ("?max_gap=-1", 422)
        ]:  # fmt: skip
            with (
                pytest.raises(InvalidStatus) as refused,
                connect(f"ws://127.0.0.1:{server.server.port}/streams/{run_id}{path}", proxy=None),
            ):
                pass
            response = refused.value.response
            assert (response.status_code, json.loads(response.body or b"")["status"]) == (status, status)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """The error has the command that installs it, and is an ImportError."""
    code = "import sys; sys.modules['fastapi'] = None\nfrom recorder.server import create_app"
    done = run_python(code)
    assert done.returncode == 1
    assert "MissingExtra: Serving needs fastapi" in done.stderr
    assert INSTALL_SERVER in done.stderr


def test_the_schema_lists_the_routes(tmp_path: Path) -> None:
    """It names the statuses of each route, and has the form of errors."""
    with serving(new_url(tmp_path)) as server:
        found = CLIENT.get(f"{server.url}/openapi.json").json()
    responses = found["paths"]["/streams/{run}"]["get"]["responses"]
    assert {"200", "204", "400", "401", "403", "404", "422", "503"} <= responses.keys()
    assert responses["404"]["content"].keys() == {"application/problem+json"}
    assert "Problem" in found["components"]["schemas"]


@pytest.mark.parametrize("state", ["missing", "foreign", "newer"])
def test_a_database_that_cannot_be_read_is_a_problem(tmp_path: Path, state: str) -> None:
    """The answer says to come back; the path and the reason are in the log only."""
    url = f"sqlite:///{tmp_path / 'secret-name.db'}"
    if state != "missing":
        url = new_url(tmp_path, "secret-name.db")
        change = "UPDATE alembic_version SET version_num = '9999'" if state == "newer" else "DROP TABLE runs"
        commit(url, change)
    with serving(url) as server:
        response = CLIENT.get(f"{server.url}/streams/{uuid.uuid4()}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "secret-name" not in response.text


def commit(url: str, statement: str) -> None:
    """Execute a statement that writes."""
    import sqlite3

    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        connection.execute(statement)
    connection.close()


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve a user's application with plain uvicorn; yields its address."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def test_it_is_mounted_into_an_application(database: str) -> None:
    """It opens the database at the first request, and closes it with the history."""
    history = ChatHistoryCallback(database)
    run_id = record(history)
    history.flush().wait(10)
    app = FastAPI()
    app.mount("/recorder", create_app(history))
    with running(app) as url:
        assert read(f"{url}/recorder", run_id).texts == ["Hello"]
        assert CLIENT.get(f"{url}/recorder/nothing").json()["status"] == 404
        assert CLIENT.get(f"{url}/recorder/openapi.json").status_code == 200
        history.close().wait(10)
        assert CLIENT.get(f"{url}/recorder/streams/{run_id}").status_code == 503


def test_streams_end_when_the_history_is_closed(database: str) -> None:
    """Readers of a live run are not left hanging."""
    history = ChatHistoryCallback(database)
    run_id = begin(history)
    history.flush().wait(10)
    app = FastAPI()
    app.mount("/recorder", create_app(history))
    with running(app) as url, CLIENT.stream("GET", f"{url}/recorder/streams/{run_id}") as response:
        lines = response.iter_raw()
        assert next(lines) == b"retry: 1000\n\n"
        history.close().wait(10)
        assert b"".join(lines) == b""


def application(history: ChatHistoryCallback, calls: list[uuid.UUID]) -> FastAPI:
    """A user's application, whose route calls a model and streams its run."""
    app = FastAPI()
    app.mount("/recorder", create_app(history))
    tasks: set[asyncio.Task[None]] = set()

    async def call_model(run_id: uuid.UUID) -> None:
        begin(history, run_id=run_id)
        for number in range(20):
            say(history, run_id, [f"{number} "])
            await history.flush()
        finish(history, run_id, "done")

    @app.get("/chat")
    async def chat(request: Request) -> Any:
        if (known := resumed_run(request)) is not None:
            return await stream_response(known, history, request)
        calls.append(run_id := uuid.uuid4())
        tasks.add(asyncio.create_task(call_model(run_id)))
        return await stream_response(run_id, history)

    return app


def test_a_route_streams_the_run_of_its_own_model(database: str) -> None:
    """The run goes on when its reader leaves; the reader comes back to the route, or to the mounted streams."""
    calls: list[uuid.UUID] = []
    with ChatHistoryCallback(database) as history, running(application(history, calls)) as url:
        with CLIENT.stream("GET", f"{url}/chat") as response:
            run_id = response.headers["x-recorder-run"]
            assert next(response.iter_raw()) == b"retry: 1000\n\n"
        events = read(f"{url}/recorder", run_id)
        headers = {"last-event-id": f"{run_id}:5"}
        again = CLIENT.get(f"{url}/chat", headers=headers)
    assert events.texts == [f"{number} " for number in range(20)]
    assert again.text.count("data:") == 16
    assert [str(each) for each in calls] == [run_id]
    assert sql(database, "SELECT count(*) FROM runs") == [(1,)]
