"""Every public call ends in time, on an event loop and without one, when the database does not respond.

The tests check that a call ends and how it ends; they measure no time. `DEADLINE` is many times as long as the
timeouts that are set here. All calls of a test run at once, each on a thread of its own.
"""

from __future__ import annotations

import asyncio
import io
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import make_url

from recorder import ChatHistoryCallback
from recorder.errors import StoreError
from recorder.export import export, import_
from recorder.messages import HumanMessage
from recorder.models import SimpleChatModel
from recorder.replay import NotRecorded, Replay
from recorder.storage import migrate
from recorder.storage.reader import DatabaseReader
from tests import postgres
from tests.faults.proxy import proxy
from tests.oracle import begin, new_url, record, say

#: Seconds after which a call counts as one that never ends.
DEADLINE = 40.0
#: How a call ends that raises nothing.
ENDS = "ends"
NEVER = "never ends"

#: Options of the recorders in this file, in seconds and bytes.
SHORT_TIMEOUTS = {"open_timeout": 0.5, "close_timeout": 0.5, "block_timeout": 0.1, "max_queue_bytes": 4_000}


class Echo(SimpleChatModel):
    """Streams more text than the queue has room for."""

    def _stream(self, messages: list[Any], stop: list[str] | None = None, **options: Any) -> Iterator[str]:
        yield "Y" * 3_000
        yield "es" * 3_000


class Call(NamedTuple):
    """A call, and how it ends while the database does not respond; a call on a loop returns a coroutine."""

    name: str
    call: Callable[[], Any]
    ends: str = ENDS
    on_loop: bool = False


# -- databases that do not respond ------------------------------------------------------------------------------------


@dataclass
class Database:
    """A database with one conversation, and a way to make it stop responding."""

    url: str
    silenced: Callable[[], AbstractContextManager[None]]
    #: How reading ends while `silenced`; a SQLite file can be read while another program writes.
    reading: str = StoreError.__name__
    recorders: list[ChatHistoryCallback] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)

    def recorder(self, **options: Any) -> ChatHistoryCallback:
        """Return a recorder on this database with short timeouts and a small queue."""
        found = ChatHistoryCallback(self.url, conversation_id="live", **{**SHORT_TIMEOUTS, **options})
        self.recorders.append(found)
        return found

    def replay(self, *, warm: bool) -> Replay:
        """Return a replay of this database with a connection of its own; `warm` connects it now."""
        found = Replay(self._other_url())
        self.replays.append(found)
        if warm:
            found.messages("c")
        return found

    def _other_url(self) -> str:
        """Return a URL that no other replay has, because replays of one URL share a connection."""
        if self.url.startswith("sqlite"):
            return self.url
        name = {"application_name": f"replay{len(self.replays)}"}
        return make_url(self.url).update_query_dict(name).render_as_string(hide_password=False)

    def close(self) -> None:
        """Close all recorders and replays."""
        for closing_ in [recorder.close(0) for recorder in self.recorders]:
            closing_.wait(DEADLINE)
        for replay in self.replays:
            replay.close()


def with_short_timeouts(url: str) -> str:
    """Return the URL with one second to connect and one second for a statement."""
    times = {"connect_timeout": "1", "command_timeout": "1"}
    return make_url(url).update_query_dict(times).render_as_string(hide_password=False)


@contextmanager
def stopped_postgres(folder: Path) -> Iterator[Database]:
    """All processes of a Postgres server are stopped by a signal."""
    server = postgres.start(Path(tempfile.mkdtemp(prefix="pg")))  # not the shared one, which other tests use
    url = server.get_uri()
    migrate.upgrade(url)

    @contextmanager
    def silenced() -> Iterator[None]:
        query = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with postgres.stopped([server.get_pid(), *(pid for (pid,) in postgres.fetch(url, query))]):
            yield

    yield Database(with_short_timeouts(url), silenced)


@contextmanager
def silent_network(folder: Path) -> Iterator[Database]:
    """The network between recorder and the Postgres server drops everything."""
    postgres.server()
    url = postgres.new_database()
    with proxy(url) as between:

        @contextmanager
        def silenced() -> Iterator[None]:
            between.stalled = True
            try:
                yield
            finally:
                between.stalled = False

        yield Database(with_short_timeouts(between.url), silenced)
    postgres.drop(url)


@contextmanager
def locked_file(folder: Path) -> Iterator[Database]:
    """Another program holds the write lock of a SQLite file."""
    url = new_url(folder)

    @contextmanager
    def silenced() -> Iterator[None]:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    yield Database(url, silenced, reading=ENDS)


# -- the calls --------------------------------------------------------------------------------------------------------


def recording(database: Database) -> Iterator[Call]:
    """Yield calls of recorders that were opened before the database stopped responding."""

    def on_thread(name: str, call: Callable[[ChatHistoryCallback], Any], ends: str = ENDS) -> Call:
        recorder = database.recorder()

        def off_loop() -> Any:
            store_something(recorder)
            return call(recorder)

        return Call(name, off_loop, ends)

    def awaited(name: str, call: Callable[[ChatHistoryCallback], Any], ends: str = ENDS) -> Call:
        recorder = database.recorder()

        async def on_loop() -> Any:
            store_something(recorder)
            return await call(recorder)

        return Call(name, on_loop, ends, on_loop=True)

    yield on_thread("flush().wait(...)", lambda recorder: recorder.flush().wait(0.5), "TimeoutError")
    yield awaited("await flush()", lambda recorder: asyncio.wait_for(recorder.flush(), 0.5), "TimeoutError")
    yield on_thread("close().wait()", lambda recorder: recorder.close().wait())
    yield on_thread("close(0).wait()", lambda recorder: recorder.close(0).wait())
    yield awaited("await close()", lambda recorder: recorder.close())
    yield on_thread("with", leave_a_with_block)
    yield awaited("async with", leave_an_async_with_block)
    yield on_thread("add_messages()", add_many, "StoreError")
    yield awaited("add_messages() on a loop", on_a_loop(add_many), "StoreError")
    yield on_thread("stats()", lambda recorder: recorder.stats())
    yield awaited("stats() on a loop", on_a_loop(lambda recorder: recorder.stats()))
    yield on_thread("model.invoke()", lambda recorder: Echo(callbacks=[recorder]).invoke("Hi"))
    yield on_thread("model.stream()", lambda recorder: list(Echo(callbacks=[recorder]).stream("Hi")))
    yield awaited(
        "model.stream() on a loop", on_a_loop(lambda recorder: list(Echo(callbacks=[recorder]).stream("Hi")))
    )
    yield awaited("model.ainvoke()", lambda recorder: Echo(callbacks=[recorder]).ainvoke("Hi"))
    yield awaited("model.astream()", lambda recorder: all_of(Echo(callbacks=[recorder]).astream("Hi")))


def store_something(recorder: ChatHistoryCallback) -> None:
    """Begin a run with one token."""
    say(recorder, begin(recorder), ["a"])


def leave_a_with_block(recorder: ChatHistoryCallback) -> None:
    """Record something in a `with` block, which closes the recorder."""
    with recorder:
        store_something(recorder)


async def leave_an_async_with_block(recorder: ChatHistoryCallback) -> None:
    """Record something in an `async with` block, which closes the recorder."""
    async with recorder:
        store_something(recorder)


def add_many(recorder: ChatHistoryCallback) -> None:
    """Add more messages than the queue has room for."""
    for _ in range(10):
        recorder.add_messages("Hi " * 500)


def on_a_loop(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a coroutine function that makes a synchronous call on an event loop."""

    async def called(subject: Any) -> Any:
        return call(subject)

    return called


async def all_of(chunks: Any) -> list[Any]:
    """Return all chunks of an asynchronous stream."""
    return [chunk async for chunk in chunks]


def opening(database: Database) -> Iterator[Call]:
    """Yield calls that open recorders while the database does not respond."""

    def constructed(strict: bool) -> None:
        database.recorder(strict=strict).close().wait()

    async def opened(strict: bool) -> None:
        recorder = database.recorder(strict=strict)
        try:
            await recorder.opened()
        finally:
            await recorder.close()

    async def entered(strict: bool) -> None:
        async with database.recorder(strict=strict) as recorder:
            store_something(recorder)

    for strict, name, ends in ((False, "", ENDS), (True, "(strict=True)", "RecorderError")):
        yield Call(f"construction{name}", partial(constructed, strict), ends)
        yield Call(f"await opened(){name}", partial(opened, strict), ends, on_loop=True)
        yield Call(f"async with of a new one{name}", partial(entered, strict), ends, on_loop=True)


READ: dict[str, Callable[[Replay], Any]] = {
    "messages()": lambda replay: replay.messages("c"),
    "runs()": lambda replay: replay.runs("c"),
    "stream()": lambda replay: list(replay.stream("c", speed=None)),
    "stream(follow=True)": lambda replay: list(replay.stream("c", speed=None, follow=True)),
    "frames()": lambda replay: list(replay.frames("c", speed=None)),
    "into()": lambda replay: replay.into([], "c"),
    "model().invoke()": lambda replay: replay.model().invoke("Hi"),
    "http_client().post()": lambda replay: post(replay.http_client()),
}
READ_ON_LOOP: dict[str, Callable[[Replay], Any]] = {
    "amessages()": lambda replay: replay.amessages("c"),
    "astream()": lambda replay: all_of(replay.astream("c", speed=None)),
    "astream(follow=True)": lambda replay: all_of(replay.astream("c", speed=None, follow=True)),
    "aframes()": lambda replay: all_of(replay.aframes("c", speed=None)),
    "ainto()": lambda replay: replay.ainto([], "c"),
    "model().ainvoke()": lambda replay: replay.model().ainvoke("Hi"),
}


def post(client: Any) -> None:
    """Send a request for which no response is recorded."""
    with client, suppress(NotRecorded):
        client.post("http://provider/v1/chat/completions", json={"model": "m", "messages": []})


def reading(database: Database, *, warm: bool) -> Iterator[Call]:
    """Yield calls of replays; `warm` ones connected before the database stopped responding."""

    def on_thread(call: Callable[[Replay], Any], replay: Replay) -> Callable[[], Any]:
        def called() -> Any:
            with replay:
                return call(replay)

        return called

    def awaited(call: Callable[[Replay], Any], replay: Replay) -> Callable[[], Any]:
        async def called() -> Any:
            async with replay:
                return await call(replay)

        return called

    when = ", connected" if warm else ""
    for name, call in READ.items():
        yield Call(f"Replay.{name}{when}", on_thread(call, database.replay(warm=warm)), database.reading)
    for name, call in READ_ON_LOOP.items():
        yield Call(
            f"Replay.{name}{when}", awaited(call, database.replay(warm=warm)), database.reading, on_loop=True
        )
    yield Call("Replay.close()" + when, database.replay(warm=warm).close)


def transferring(database: Database, exported: str) -> Iterator[Call]:
    """Yield calls that export and import everything."""

    async def on_loop(call: Callable[[], Any]) -> Any:
        return call()

    def out() -> Any:
        return export(database.url, io.StringIO())

    def back() -> Any:
        return import_(database.url, io.StringIO(exported))

    yield Call("export()", out, database.reading)
    yield Call("import_()", back, "StoreError")
    yield Call("export() on a loop", lambda: on_loop(out), database.reading, on_loop=True)
    yield Call("import_() on a loop", lambda: on_loop(back), "StoreError", on_loop=True)


# -- the tests --------------------------------------------------------------------------------------------------------


def started(call: Call) -> Future[Any]:
    """Start a call on a thread of its own, so that a call that never ends does not stop the others."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(asyncio.run(call.call()) if call.on_loop else call.call())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name=call.name, daemon=True).start()
    return found


def end_of(found: Future[Any]) -> str:
    """Return how a call ended."""
    try:
        error = found.exception(DEADLINE)
    except TimeoutError:
        return NEVER
    return ENDS if error is None else type(error).__name__


@pytest.mark.parametrize("kind", [stopped_postgres, silent_network, locked_file])
def test_every_call_ends_when_the_database_does_not_respond(
    kind: Callable[[Path], AbstractContextManager[Database]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call ends as its documentation says."""
    monkeypatch.setattr("recorder.storage.dialects.sqlite.BUSY_TIMEOUT", 0.5)
    with kind(tmp_path) as database:
        with ChatHistoryCallback(database.url, conversation_id="c") as history:
            record(history, HumanMessage("Hi"))
        exported = io.StringIO()
        export(database.url, exported)
        calls = [*recording(database), *reading(database, warm=True), *reading(database, warm=False)]
        calls += [*opening(database), *transferring(database, exported.getvalue())]
        with database.silenced():
            found = {call.name: started(call) for call in calls}
            ends = {name: end_of(future) for name, future in found.items()}
        database.close()
    assert ends == {call.name: call.ends for call in calls}
    assert len(ends) == len(calls)


def test_queries_on_one_silent_connection_fail_together(tmp_path: Path) -> None:
    """Replays of one URL share a connection: when a query times out, the waiting queries get the same error."""
    url = postgres.new_database()
    with proxy(url) as between, Replay(with_short_timeouts(between.url)) as replay:
        between.stalled = True
        asked = [replay.reader.ask(DatabaseReader.messages, "c") for _ in range(8)]
        errors = [str(question.exception(DEADLINE)) for question in asked]
        assert between.clients == 1
        between.stalled = False
        assert len(set(errors)) == 1
        assert "did not answer within 1 s" in errors[0]
        assert replay.messages("c") == []
    postgres.drop(url)
