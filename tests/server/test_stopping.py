"""`POST /streams/{run}/stop` leaves the provider on any server process and keeps what has come."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import httpx
import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server import stopping
from recorder.server.configuration import ChatTable
from recorder.server.served_run import SERVED
from recorder.testing import Answer, LoopbackProvider
from recorder.testing.openai_chat import openai_chat_frames
from tests import postgres
from tests.oracle import begin, new_url, observed_statements, record, run_python, sql
from tests.server.serving import CLIENT, TOKEN, Served, begin_chat, read, serving, small

ANNA, BORIS = "a-token-of-the-user-anna", "a-token-of-the-user-boris"
WORDS = ["Hello", " there", "!"]
TOKENS = {TOKEN: None, ANNA: "anna", BORIS: "boris"}


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider whose answers have no end."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(WORDS), hang_after=4)) as provider:
        yield provider


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def servers(
    request: pytest.FixtureRequest, provider: LoopbackProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Served]]:
    """Yield two servers of one database, with models and without."""
    is_sqlite = request.param == "sqlite"
    url = new_url(tmp_path_factory.mktemp("stopping")) if is_sqlite else postgres.new_database()
    with (
        serving(url, TOKENS, models=[small(provider)], limits=ChatTable(drain_within=0)) as one,
        serving(url, TOKENS) as other,
    ):
        yield one, other
    if not is_sqlite:
        postgres.drop(url)


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"authorization": f"Bearer {token}"}


def stop(server: Served, run_id: object, token: str = TOKEN) -> httpx.Response:
    """Ask a server to stop a run."""
    return CLIENT.post(f"{server.url}/streams/{run_id}/stop", headers=bearer(token))


def begun(server: Served, token: str = ANNA) -> str:
    """Start a run and wait until its tokens are stored."""
    run_id: str = begin_chat(server.url, headers=bearer(token), messages="Hi")["run_id"]
    with CLIENT.stream("GET", f"{server.url}/streams/{run_id}", headers=bearer(token)) as response:
        received, chunks = "", response.iter_text()
        while '"!"' not in received:
            received += next(chunks)
    return run_id


@pytest.mark.parametrize("place", [0, 1], ids=["here", "elsewhere"])
def test_a_run_is_stopped_by_any_server(servers: tuple[Served, Served], place: int) -> None:
    """Its reader gets the partial answer and the status, and a second stop says the same."""
    run_id = begun(servers[0])
    for _ in range(2):
        found = stop(servers[place], run_id, ANNA)
        assert (found.status_code, found.json()) == (200, {"run_id": run_id, "status": "cancelled"})
    events = read(servers[1].url, run_id, headers=bearer(ANNA))
    assert (events.texts, events.end) == (WORDS, {"status": "cancelled"})
    assert servers[0].chats.under_way == 0
    url = servers[0].database.url
    stored = sql(url, "SELECT content FROM messages WHERE run_id = ?", run_id)
    assert stored == [("".join(WORDS),)]


def test_who_has_stopped_a_run_is_stored(servers: tuple[Served, Served]) -> None:
    """The request has the user of the token, or none."""
    runs = [begun(servers[0]) for _ in range(2)]
    for run_id, token in zip(runs, (ANNA, TOKEN), strict=True):
        assert stop(servers[1], run_id, token).status_code == 200
    query = "SELECT requested_by FROM stop_requests WHERE run_id = ?"
    assert [sql(servers[0].database.url, query, run_id) for run_id in runs] == [[("anna",)], [(None,)]]


def test_an_ended_run_says_how_it_ended(servers: tuple[Served, Served]) -> None:
    """Stopping it is no error: the answer may have ended just now."""
    with ChatHistoryCallback(servers[0].database.url) as history:
        run_id = record(history)
    assert [stop(server, run_id).json()["status"] for server in servers] == ["complete"] * 2


def test_a_run_of_an_application_is_stopped_there(servers: tuple[Served, Served]) -> None:
    """409 says so; nothing is requested."""
    with ChatHistoryCallback(servers[0].database.url) as history:
        run_id = begin(history)
        history.flush().wait(10)
        found = stop(servers[0], run_id)
        assert (found.status_code, found.headers["content-type"]) == (409, "application/problem+json")
        assert "stop it there" in found.json()["detail"]
    assert sql(servers[0].database.url, "SELECT 1 FROM stop_requests WHERE run_id = ?", str(run_id)) == []


def test_another_users_run_does_not_exist(servers: tuple[Served, Served]) -> None:
    """It goes on, and the answer is that for an unknown run."""
    run_id = begun(servers[0])
    absent = str(uuid.uuid4())
    found = [stop(server, id, BORIS) for server in servers for id in (run_id, absent)]
    assert {response.status_code for response in found} == {404}
    assert len({response.text.replace(run_id, "ID").replace(absent, "ID") for response in found}) == 1
    assert servers[0].chats.under_way == 1
    assert stop(servers[0], run_id, ANNA).status_code == 200


def test_a_silent_owner_keeps_nobody_waiting(
    servers: tuple[Served, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not answer is not waited for longer than some seconds; the answer is 202."""
    monkeypatch.setattr(stopping, "ENDS_WITHIN", 0.2)
    with ChatHistoryCallback(servers[0].database.url) as history:
        run_id = begin(history, metadata={SERVED: "a hash"})
        history.flush().wait(10)
        found = stop(servers[1], run_id)
        assert (found.status_code, found.json()["status"]) == (202, "streaming")


def test_a_dead_owners_run_is_interrupted(servers: tuple[Served, Served]) -> None:
    """It needs no stop."""
    code = """
import os, sys, uuid
from recorder import ChatHistoryCallback
history, run_id = ChatHistoryCallback(sys.argv[1]), uuid.UUID(sys.argv[2])
history.on_chat_model_start({}, [[("user", "Hi")]], run_id=run_id, metadata={sys.argv[3]: "a hash"})
history.flush().wait(10)
os._exit(0)
"""
    run_id = uuid.uuid4()
    assert run_python(code, servers[0].database.url, run_id, SERVED).returncode == 0
    found = stop(servers[0], run_id)
    assert (found.status_code, found.json()["status"]) == (200, "interrupted")


def test_requests_are_looked_for_together(servers: tuple[Served, Served]) -> None:
    """One query serves all runs under way."""
    runs = [begun(servers[0]) for _ in range(4)]
    events: list[str] = []
    interval = threading.Event()

    def note(statement: str) -> None:
        if "FROM stop_requests" in statement:
            events.append(statement)
            if len(events) == 2:
                interval.set()

    with observed_statements(note):
        assert interval.wait(10)
        assert stop(servers[1], runs[0]).status_code == 200
    assert servers[0].chats.under_way == 3
    for run_id in runs[1:]:
        stop(servers[0], run_id)
    assert servers[0].chats.under_way == 0
    assert len({*events}) == 1


def test_a_server_that_only_reads_opens_a_recorder_for_a_stop(servers: tuple[Served, Served]) -> None:
    """Before the first stop it writes nothing."""
    url = servers[0].database.url
    with serving(url, TOKENS) as reader:
        assert CLIENT.get(f"{reader.url}/healthz", headers=bearer(TOKEN)).status_code == 200
        assert reader.database.history is None
        run_id = begun(servers[0])
        assert stop(reader, run_id).status_code == 200
        assert reader.database.history is not None


def test_a_run_that_is_stopped_before_its_first_token_is_cancelled(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The provider has not answered yet."""
    url = new_url(tmp_path_factory.mktemp("early"))
    with (
        LoopbackProvider(Answer(frames=[], hang_after=0)) as silent,
        serving(url, models=[small(silent)]) as server,
    ):
        run_id = begin_chat(server.url, messages="Hi")["run_id"]
        assert stop(server, run_id).json()["status"] == "cancelled"
        assert read(server.url, run_id).end == {"status": "cancelled"}
