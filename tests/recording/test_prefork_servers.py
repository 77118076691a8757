"""Real servers that load the application and then fork or spawn their workers: each worker records, and all is stored.

The application stores nothing before it ends (`flush_interval`), so that the end of each worker is what is tested.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recorder.storage.rows import COMPLETE
from recorder.testing import LoopbackProvider
from tests.oracle import FORKS, ROOT, sql, stored

#: The application. It tells each run in a named pipe, with what its user got to see.
APPLICATION = """
import json, multiprocessing, os, uuid
import recorder.recording.recorder
from recorder import ChatHistoryCallback
from recorder.models import ChatOpenAI

recorder.recording.recorder.EXIT_TIMEOUT = 50  # a busy machine may take long to open the database
history = ChatHistoryCallback(os.environ["DATABASE"], flush_interval=3600, strict=True)
chat = ChatOpenAI(model="gpt-4o", base_url=os.environ["PROVIDER"], api_key="any", callbacks=[history])
first_two = multiprocessing.get_context("fork").Barrier(2)

def tell(run_id, texts):
    line = json.dumps([os.getpid(), str(run_id), "".join(texts)])
    with open(os.environ["TOLD"], "a") as pipe:
        pipe.write(line + "\\n")

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/both":  # a worker answers one request at a time, so each of the two has one
        first_two.wait(150)
    run_id = uuid.uuid4()
    tell(run_id, [chunk.content for chunk in chat.stream("Sing!", {"run_id": run_id})])
    start_response("200 OK", [("Content-Length", "4")])
    return [b"sung"]

async def sing():
    run_id = uuid.uuid4()
    tell(run_id, [chunk.content async for chunk in chat.astream("Sing!", {"run_id": run_id})])

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        async with history:
            await sing()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await sing()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"sung"})
"""

GUNICORN = ("gunicorn", "--preload", "--workers", "2", "--timeout", "150", "--log-level", "error", "--bind")
SERVERS = {
    "gunicorn, sync": (*GUNICORN, "fd://{fd}", "application:wsgi"),
    "gunicorn, asgi": (*GUNICORN, "fd://{fd}", "--worker-class", "asgi", "application:asgi"),
    "uvicorn": ("uvicorn", "--workers", "2", "--log-level", "error", "--fd", "{fd}", "application:asgi"),
}


class Connection(http.client.HTTPConnection):
    """One to a socket in a folder."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="server") as path:
        yield Path(path)


def ask(path: Path, what: str = "/") -> None:
    """A user asks, and gets an answer."""
    connection = Connection(str(path), timeout=150)
    connection.request("GET", what, headers={"Host": "here", "Connection": "close"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"sung")
    connection.close()


@contextmanager
def serving(folder: Path, name: str, **environment: str) -> Iterator[Path]:
    """A server whose socket listens already. Told to end, it ends well and says nothing."""
    (folder / "application.py").write_text(APPLICATION)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(20)
        command = [part.format(fd=listener.fileno()) for part in SERVERS[name]]
        server = subprocess.Popen(
            [sys.executable, "-W", FORKS, "-m", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", **environment},
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield folder / "socket"
            server.send_signal(signal.SIGTERM)
            _, errors = server.communicate(timeout=150)
            assert (server.returncode, errors) == (0, "")
        finally:
            server.kill()
            server.communicate()


def told(pipe: int) -> Iterator[tuple[int, str, str]]:
    """Process, run and text of each run, when it is told."""
    with os.fdopen(pipe, closefd=False) as lines:
        for line in lines:
            process, run_id, text = json.loads(line)
            yield process, run_id, text


@pytest.mark.timeout(180)  # a server and its workers import the whole application each
@pytest.mark.parametrize("name", SERVERS)
def test_each_worker_of_a_server_records(database: str, folder: Path, name: str) -> None:
    """Two workers, each with runs of its own, some at once: after the server has ended they are stored, every token."""
    os.mkfifo(folder / "told")
    pipe = os.open(folder / "told", os.O_RDWR)
    lines = told(pipe)
    with LoopbackProvider.song(tokens=40) as provider, ThreadPoolExecutor(8) as users:
        environment = {"DATABASE": database, "PROVIDER": provider.base_url, "TOLD": str(folder / "told")}
        with serving(folder, name, **environment) as path:
            list(users.map(ask, [path] * 2, ["/both"] * 2))
            list(users.map(ask, [path] * 6))
            runs = [next(lines) for _ in range(8 if "sync" in name else 10)]
    os.close(pipe)
    assert len({process for process, _, _ in runs}) == 2
    for _, run_id, text in runs:
        assert_all_stored(stored(database, run_id), text)
    assert sql(database, "SELECT count(*) FROM runs") == [(len(runs),)]


def assert_all_stored(run: Any, text: str) -> None:
    """The run is stored whole: what its user got to see, and the seal proves it."""
    assert text
    assert "".join(run.texts[seq] for seq in sorted(run.texts)) == text
    assert (run.status, run.gaps) == (COMPLETE, [])
    assert (run.token_count, run.sha256) == (len(run.texts), run.found_sha256)
