"""`recorder serve` starts, says in one line why it cannot, and ends in order."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.testing import Answer, LoopbackProvider
from recorder.testing.openai_chat import openai_chat_frames
from tests.cli.test_commands import cli
from tests.oracle import begin, new_url, sql, stored
from tests.server.serving import CLIENT, TOKEN, begin_chat, serving_processes


def test_sigterm_ends_the_streams_and_then_the_server(tmp_path: Path) -> None:
    """The response of a reader is complete, so the reader comes back with its cursor; the exit code is 0."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history, serving_processes(url, 1) as [(process, address)]:
        run_id = begin(history)
        history.flush().wait(10)
        with CLIENT.stream("GET", f"{address}/streams/{run_id}") as response:
            chunks = response.iter_raw()
            assert next(chunks) == b"retry: 1000\n\n"
            process.send_signal(signal.SIGTERM)
            assert b"".join(chunks) == b""
        assert process.wait(10) == 0
        with pytest.raises(httpx.ConnectError):
            CLIENT.get(address)


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """It says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli("serve", "--port", port, url=new_url(tmp_path))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "choose another with --port" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_another_address_than_loopback_needs_a_token(tmp_path: Path, host: str) -> None:
    """Nothing is served without one."""
    done = cli("serve", "--host", host, url=new_url(tmp_path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "--token or RECORDER_TOKEN" in done.stderr


def test_a_token_that_is_too_short_is_refused(tmp_path: Path) -> None:
    """The error does not repeat it."""
    done = cli("serve", "--token", "hunter2", url=new_url(tmp_path))
    assert done.exit_code == 1
    assert "hunter2" not in done.stderr
    assert "secrets.token_urlsafe" in done.stderr


def test_a_database_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """A file that is missing, newer or another tool's, and a server that is away."""
    newer, foreign = new_url(tmp_path, "newer.db"), new_url(tmp_path, "foreign.db")
    for url, statement in (
        (newer, "UPDATE alembic_version SET version_num = '9999'"),
        (foreign, "DROP TABLE alembic_version"),
    ):
        execute(url, statement)
    urls = [
        newer,
        foreign,
        f"sqlite:///{tmp_path}/none.db",
        "postgresql://u:hidden@127.0.0.1:1/d",
        "mysql://x/y",
    ]
    for url in urls:
        done = cli("serve", "--token", TOKEN, url=url)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "hidden" not in done.stderr


def execute(url: str, statement: str) -> None:
    """Execute a statement that writes."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)
    assert sql(url, "SELECT 1") == [(1,)]


def configuration(folder: Path, provider: LoopbackProvider, chat: str = "") -> str:
    """Write a configuration with a model of this provider; returns its path."""
    path = folder / "recorder.toml"
    model = f'provider = "ChatOpenAI"\nmodel = "gpt-4o"\nbase_url = "{provider.base_url}"'
    path.write_text(f"[chat]\n{chat}\n[models.small]\n{model}\n")
    return str(path)


@pytest.mark.parametrize("seconds", [0, 30], ids=["cut", "complete"])
def test_sigterm_gives_runs_a_time_and_then_cuts_them(tmp_path: Path, seconds: int) -> None:
    """Readers end first; a run that is cut is recorded as cancelled with its tokens, and the exit code is 0."""
    url, frames = new_url(tmp_path), openai_chat_frames(["One", " two", " three"])
    answer = Answer(frames=frames, hang_after=None if seconds else 4, interval=0.3 if seconds else 0)
    with LoopbackProvider(answer) as provider:
        config = configuration(tmp_path, provider, f"drain_within = {seconds}")
        with serving_processes(url, 1, "--config", config) as [(process, address)]:
            run = begin_chat(address, messages="Sing!")
            with CLIENT.stream("GET", address + run["stream"]) as response:
                received, chunks = "", response.iter_text()
                while '"One"' not in received:
                    received += next(chunks)
                process.send_signal(signal.SIGTERM)
                assert "event: end" not in "".join(chunks)
            assert process.wait(20) == 0
    found = stored(url, run["run_id"])
    if seconds:
        assert (found.status, [*found.texts.values()]) == ("complete", ["One", " two", " three"])
    else:
        assert (found.status, found.texts[0], found.gaps) == ("cancelled", "One", [])


def test_a_second_signal_cuts_runs_at_once(tmp_path: Path) -> None:
    """The run is recorded as cancelled all the same."""
    url, answer = new_url(tmp_path), Answer(frames=openai_chat_frames(["One"]), hang_after=2)
    with LoopbackProvider(answer) as provider:
        config = configuration(tmp_path, provider, "drain_within = 300")
        with serving_processes(url, 1, "--config", config) as [(process, address)]:
            run = begin_chat(address, messages="Sing!")
            with CLIENT.stream("GET", address + run["stream"]) as response:
                chunks = response.iter_raw()
                assert next(chunks)
                process.send_signal(signal.SIGTERM)
                assert b"event: end" not in b"".join(chunks)  # the first signal has come
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert stored(url, run["run_id"]).status == "cancelled"


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    """It has the file, the table, the word and the nearest right one; nothing was opened."""
    path, url = tmp_path / "recorder.toml", f"sqlite:///{tmp_path / 'none.db'}"
    path.write_text("[chat]\nmax_run = 3\n")
    done = cli("serve", "--config", str(path), url=url)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "[chat] has no 'max_run'; did you mean 'max_runs'?" in done.stderr
    assert not (tmp_path / "none.db").exists()


def test_a_database_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A server with models opens a recorder; a newer file and a server that is away are refused."""
    newer = new_url(tmp_path, "newer.db")
    execute(newer, "UPDATE alembic_version SET version_num = '9999'")
    with LoopbackProvider() as provider:
        config = configuration(tmp_path, provider)
        for url in (newer, "postgresql://u:hidden@127.0.0.1:1/d"):
            done = cli("serve", "--config", config, url=url)
            assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.stderr
            assert "hidden" not in done.stderr


def test_requests_are_logged_as_json(tmp_path: Path) -> None:
    """Each line of stderr after the first one is JSON."""
    with serving_processes(new_url(tmp_path), 1, "--log-format", "json") as [(process, address)]:
        assert CLIENT.get(f"{address}/conversations/secret?q=secret").status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        [line] = process.stderr.read().splitlines()
    found = json.loads(line)
    assert (found["route"], found["status"], found["user"]) == ("/conversations/{id:text}", 404, None)
    assert "secret" not in line


def test_a_key_is_nowhere_but_in_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider gets it; the database, its log, the answers and the lines of the server do not have it."""
    canary = "canary-3f9c1d7e5b"
    monkeypatch.setenv("SOME_KEY", canary)
    url, refusal = new_url(tmp_path), Answer.error(401, f"Incorrect API key provided: {canary}")
    with LoopbackProvider(refusal) as provider:
        config = configuration(tmp_path, provider)
        Path(config).write_text(Path(config).read_text() + 'api_key_env = "SOME_KEY"\n')
        with serving_processes(url, 1, "--config", config, "--log-format", "text") as [(process, address)]:
            run = begin_chat(address, messages="Hi")
            stream = CLIENT.get(address + run["stream"]).text
            about = CLIENT.get(f"{address}/runs/{run['run_id']}").text
            metrics = CLIENT.get(f"{address}/metrics").text
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stderr is not None
            lines = process.stderr.read()
    assert provider.requests[0]["headers"]["authorization"] == f"Bearer {canary}"
    assert "event: end" in stream
    files = b"".join(path.read_bytes() for path in tmp_path.glob("history.db*"))
    assert [text for text in (stream, about, metrics, lines) if canary in text] == []
    assert canary.encode() not in files
