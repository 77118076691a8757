"""Servers for tests, in a thread or in a process of their own, and readers of their streams."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.models import ChatOpenAI
from recorder.server.access import Access
from recorder.server.app import app_for
from recorder.server.chat_models import ServedModel
from recorder.server.chat_runs import ChatRuns
from recorder.server.configuration import ChatTable
from recorder.server.database import ServedDatabase
from recorder.server.serving import RecorderServer, listen
from recorder.testing import LoopbackProvider
from tests.oracle import ROOT

TOKEN = "a-token-of-an-administrator"
#: One client for all requests: making one takes longer than a request, and each request connects anew.
CLIENT = httpx.Client(verify=False, limits=httpx.Limits(max_keepalive_connections=0), timeout=30)


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    server: RecorderServer
    database: ServedDatabase
    chats: ChatRuns

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server.port}"


@contextmanager
def serving(
    source: str,
    tokens: Mapping[str, str | None] | None = None,
    *,
    hosts: Sequence[str] | None = None,
    origins: Sequence[str] = (),
    models: Iterable[ServedModel] = (),
    limits: ChatTable | None = None,
) -> Iterator[Served]:
    """Serve a database from a thread; the server ends in order with the block."""
    database = ServedDatabase(source)
    chats = ChatRuns(database, models, limits)
    app = app_for(database, Access(tokens, hosts, origins), origins, chats)
    server = RecorderServer(app, database, listen("127.0.0.1", 0), chats=chats)
    thread = threading.Thread(target=server.run, name="server of a test", daemon=True)
    thread.start()
    try:
        yield Served(server, database, chats)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def serving_processes(
    url: str, count: int, *options: str
) -> Iterator[list[tuple[subprocess.Popen[str], str]]]:
    """Run `recorder serve` several times; yields the processes and their addresses. They are killed with the block."""
    command = [sys.executable, "-m", "recorder", "serve", "--url", url, "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(count)
    ]
    try:
        yield [(process, _address(process)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=10)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if (found := re.search(r"at (http://\S+:\d+);", line)) is not None:
            return found[1]
    raise AssertionError("".join(lines))


@dataclass(slots=True)
class Events:
    """The events of one response, or of several that continue each other."""

    texts: list[str] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    #: The id of the last event.
    id: str | None = None

    def add(self, name: str, id: str, data: dict[str, Any]) -> None:
        """Take one event."""
        self.id = id
        if name == "end":
            self.end = data
        elif name == "gap":
            self.gaps.append(data)
        else:
            self.seqs.append(data["seq"])
            self.texts.append(data["text"])

    def add_message(self, message: str) -> None:
        """Take one message of a WebSocket."""
        found = json.loads(message)
        for event in found["events"]:
            self.add(event.pop("event"), found["id"], event)


def parse(block: str) -> tuple[str, str, dict[str, Any]] | None:
    """One event: its name, its id and its data; None for a comment and for `retry:`."""
    fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
    if "data" not in fields:
        return None
    return fields.get("event", "message"), fields["id"], json.loads(fields["data"])


def blocks(chunks: Iterator[str]) -> Iterator[str]:
    """The events in the text of a response."""
    rest = ""
    for chunk in chunks:
        *found, rest = (rest + chunk).split("\n\n")
        yield from found
    assert rest == ""


def small(provider: LoopbackProvider, **options: Any) -> ServedModel:
    """Return a model of this provider that clients call "small"."""
    llm = ChatOpenAI("gpt-4o", base_url=provider.base_url, api_key="any", max_retries=0)
    return ServedModel("small", llm, **options)


def send(url: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
    """Send `POST /chat` to the model "small", and read the complete answer."""
    return CLIENT.post(f"{url}/chat", json={"model": "small", **body}, headers=headers)


def begin_chat(url: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> dict[str, Any]:
    """Start a run without waiting for its answer."""
    response = send(url, headers={"prefer": "respond-async", **(headers or {})}, **body)
    assert response.status_code == 202, response.text
    found: dict[str, Any] = response.json()
    return found


def read(url: str, run_id: object, known: Events | None = None, **options: Any) -> Events:
    """Read a run to the end of the response, after what is known already."""
    events = known or Events()
    headers = {**options.pop("headers", {}), **({"last-event-id": events.id} if events.id else {})}
    with CLIENT.stream("GET", f"{url}/streams/{run_id}", headers=headers, **options) as response:
        assert response.status_code == 200, response.read()
        for block in blocks(response.iter_text()):
            if (found := parse(block)) is not None:
                events.add(*found)
    return events


def recorded(history: ChatHistoryCallback, run_id: Any, texts: Sequence[str]) -> None:
    """Record these tokens, and wait until they are stored."""
    for text in texts:
        history.on_llm_new_token(text, run_id=run_id)
    history.flush().wait(10)
