"""`GET /export`: what it gives is what `recorder export` writes, and `recorder import` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.export import export, import_
from tests import postgres
from tests.oracle import begin, new_url, record, say, sql
from tests.server.serving import CLIENT, Served, serving
from tests.server.test_conversations import ANNA, BORIS

ALL = "a-token-for-everything"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server with a conversation of Anna, one run of which streams."""
    on_postgres = request.param == "postgres"
    url = postgres.new_database() if on_postgres else new_url(Path(tmp_path_factory.mktemp("export")))
    with ChatHistoryCallback(url) as history:
        with history.conversation("songs/1", user="anna"):
            record(history, reply="Bubbles 🫧")
            say(history, open_run := begin(history), ["Half"])
        history.flush().wait()
        with serving(url, {ANNA: "anna", BORIS: "boris", ALL: None}) as found:
            yield found
        history.on_llm_error(RuntimeError("the end"), run_id=open_run)
    if on_postgres:
        postgres.drop(url)


def exported(server: Served, token: str = ALL, **parameters: str) -> tuple[int, bytes]:
    """Ask for an export; its status and its bytes."""
    headers = {"authorization": f"Bearer {token}"}
    response = CLIENT.get(f"{server.url}/export", params=parameters, headers=headers)
    assert response.status_code != 200 or response.headers["x-recorder-left-out"] in ("0", "1")
    return response.status_code, response.content


def test_a_conversation_is_exported_as_by_the_command(server: Served, tmp_path: Path) -> None:
    """It can be imported into another database. The run that streams is left out, and counted."""
    status, body = exported(server, ANNA, conversation="songs/1")
    export(server.database.url, tmp_path / "by_the_command.jsonl", ["songs/1"])
    lines = (tmp_path / "by_the_command.jsonl").read_bytes().splitlines()
    assert (status, body.splitlines()[1:]) == (200, lines[1:])  # the first one has the time
    (tmp_path / "recording.jsonl").write_bytes(body)
    import_(url := new_url(tmp_path), tmp_path / "recording.jsonl")
    assert sql(url, "SELECT role, content FROM transcripts ORDER BY position") == [
        ("user", "Hi"), ("assistant", "Bubbles 🫧")
    ]  # fmt: skip


def test_a_run_is_exported(server: Served, tmp_path: Path) -> None:
    """With its prompt and its reply."""
    [(run_id,)] = sql(server.database.url, "SELECT id FROM runs WHERE status = 'complete'")
    status, body = exported(server, run=str(run_id))
    assert status == 200
    (tmp_path / "recording.jsonl").write_bytes(body)
    assert import_(new_url(tmp_path), tmp_path / "recording.jsonl").new.runs == 1


def test_others_and_unknown_ones_are_not_found(server: Served) -> None:
    """Neither is the beginning of an id; without an id the request is refused."""
    [(run_id,)] = sql(server.database.url, "SELECT id FROM runs WHERE status = 'complete'")
    for token, parameters in (
        (BORIS, {"conversation": "songs/1"}), (BORIS, {"run": str(run_id)}), (ALL, {"conversation": "songs"}),
        (ALL, {"run": "x"}), (ALL, {"conversation": "a\nb" * 300}),
    ):  # fmt: skip
        assert exported(server, token, **parameters)[0] == 404
    assert exported(server)[0] == exported(server, run=str(run_id), conversation="songs/1")[0] == 400
