"""A run is read over HTTP and WebSocket, live or finished, and a cut connection is continued exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from websockets.sync.client import connect

from recorder.chat_history_callback import ChatHistoryCallback
from tests.oracle import begin, finish, new_url, record, say, token
from tests.server.serving import CLIENT, Events, Served, read, recorded, serving
from tests.server.test_access import socket_status
from tests.stores import execute

TEXTS = [token(3, seq) or "." for seq in range(400)]


@pytest.fixture
def server(database: str) -> Iterator[Served]:
    """Yield a server of the test's database."""
    with serving(database) as found:
        yield found


def test_a_finished_run_is_read(database: str, server: Served) -> None:
    """Each token is an event, with the cursor behind it as its id; then comes the end."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, TEXTS)
        finish(history, run_id, "".join(TEXTS), finish_reason="stop")
    events = read(server.url, run_id)
    assert (events.texts, events.seqs) == (TEXTS, list(range(400)))
    assert events.end is not None
    assert events.end["status"] == "complete"
    assert events.id == f"{run_id}:400.complete"


def test_a_live_run_is_followed_to_its_end(database: str, server: Served) -> None:
    """A reader that joins in the middle gets what is stored, then what is recorded, and the end."""
    with ChatHistoryCallback(database, flush_interval=0.01) as history:
        run_id = begin(history)
        recorded(history, run_id, TEXTS[:100])

        def rest() -> None:
            for start in range(100, 400, 10):
                recorded(history, run_id, TEXTS[start : start + 10])
            finish(history, run_id, "done")

        recording = threading.Thread(target=rest)
        recording.start()
        events = read(server.url, run_id)
        recording.join()
    assert (events.texts, events.seqs) == (TEXTS, list(range(400)))
    assert events.end == {"status": "complete"}


def test_a_reader_continues_at_any_token(database: str, server: Served) -> None:
    """`Last-Event-ID` and `starting_after` give the rest, and the same end."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, TEXTS)
        finish(history, run_id, "done")
    whole = read(server.url, run_id)
    for place in (0, 1, 199, 399, 400):
        by_header = read(server.url, run_id, Events(id=f"{run_id}:{place}"))
        by_query = read(server.url, run_id, params={"starting_after": place})
        assert by_header.texts == by_query.texts == TEXTS[place:]
        assert by_header.end == by_query.end == whole.end


def test_a_client_that_has_the_end_gets_no_content(database: str, server: Served) -> None:
    """An EventSource would come back for ever otherwise."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        finish(history, run_id, "")
    events = read(server.url, run_id)
    again = CLIENT.get(f"{server.url}/streams/{run_id}", headers={"last-event-id": events.id or ""})
    assert (events.id, again.status_code, again.content) == (f"{run_id}:0.complete", 204, b"")


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "x",
        "-1",
        "1e9",
        "٣",
        "1" * 16,
        "401",
        "00000000-0000-0000-0000-000000000000:1",
        "1.<b>",
        "9" * 5_000,
    ],
)
def test_a_wrong_cursor_is_refused(tmp_path: Path, rubbish: str) -> None:
    """The answer is a problem with status 400; an empty cursor is none."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, TEXTS)
        finish(history, run_id, "done")
    other = f"{UUID(int=0)}:1"
    wrong = ["x", "-1", "1e9", "٣", "1" * 16, "401", other, "1.<b>", "9" * 5_000, "\xff", "1\t2"]
    with serving(url) as server:
        address = f"{server.url}/streams/{run_id}"
        for cursor in wrong:
            response = CLIENT.get(address, headers=[(b"last-event-id", cursor.encode())])
            assert (response.status_code, response.json()["status"]) == (400, 400), cursor
            assert response.headers["content-type"] == "application/problem+json"
        assert CLIENT.get(address, headers={"last-event-id": ""}).status_code == 200


def test_a_websocket_has_the_same_cursor(database: str, server: Served) -> None:
    """What was begun over HTTP is continued over a WebSocket, which is closed after the end."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, TEXTS)
        finish(history, run_id, "done")
    events = Events()
    address = server.url.replace("http", "ws") + f"/streams/{run_id}?starting_after={run_id}:150"
    with connect(address) as socket:
        for message in socket:
            events.add_message(str(message))
    assert events.texts == TEXTS[150:]
    assert events.end == read(server.url, run_id).end
    assert socket.protocol.close_code == 1000


def test_a_live_run_is_followed_over_a_websocket(database: str, server: Served) -> None:
    """Messages come as the tokens are stored."""
    events = Events()
    with ChatHistoryCallback(database, flush_interval=0.01) as history:
        run_id = begin(history)
        history.flush().wait(10)
        with connect(server.url.replace("http", "ws") + f"/streams/{run_id}") as socket:
            for start in range(0, 400, 100):
                recorded(history, run_id, TEXTS[start : start + 100])
                while len(events.texts) < start + 100:
                    events.add_message(str(socket.recv(10)))
            finish(history, run_id, "done")
            for message in socket:
                events.add_message(str(message))
    assert events.texts == TEXTS
    assert events.end == {"status": "complete"}


def test_a_replay_has_the_recorded_pauses(tmp_path: Path) -> None:
    """`speed` and `max_gap` play at a pace, with the same tokens, and from a cursor on."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, TEXTS)
        finish(history, run_id, "done")
    with serving(url) as server:
        paced = read(server.url, run_id, params={"speed": 10, "max_gap": 0.01})
        rest = read(server.url, run_id, Events(id=f"{run_id}:390"), params={"speed": 1000})
    assert (paced.texts, paced.end) == (TEXTS, {"status": "complete"})
    assert (rest.texts, rest.end) == (TEXTS[390:], {"status": "complete"})


def test_a_run_whose_tokens_were_deleted_is_gone(tmp_path: Path) -> None:
    """The answer is 410, over a WebSocket too; its messages are still there."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        run_id = record(history)
    execute(url, "UPDATE runs SET pruned_at = '2026-11-29T00:00:00.000000Z'")
    execute(url, "DELETE FROM segments")
    with serving(url) as server:
        response = CLIENT.get(f"{server.url}/streams/{run_id}")
        assert (response.status_code, response.json()["status"]) == (410, 410)
        assert socket_status(f"{server.url}/streams/{run_id}") == 410
        assert CLIENT.get(f"{server.url}/runs/{run_id}").status_code == 200
