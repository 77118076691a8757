"""`POST /chat` calls a model, streams and records its run, and continues conversations."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from recorder.chains import ConversationBufferWindowMemory
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server import create_app
from recorder.server.configuration import ChatTable
from recorder.testing import Answer, LoopbackProvider, scripted
from recorder.testing.openai_chat import openai_chat_frames
from tests import postgres
from tests.oracle import new_url, record, sql, stored
from tests.server.serving import CLIENT, TOKEN, Served, begin_chat, read, send, serving, small
from tests.server.test_app import running

ANNA, BORIS = "a-token-of-the-user-anna", "a-token-of-the-user-boris"
WORDS = ["Hello", " there", "!"]


def endless() -> Answer:
    """Return an answer that sends three tokens and no end."""
    return Answer(frames=openai_chat_frames(WORDS), hang_after=4)


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that answers at once."""
    with LoopbackProvider("Hello there!") as provider:
        yield provider


@pytest.fixture(scope="module")
def server(provider: LoopbackProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server without tokens."""
    url = new_url(tmp_path_factory.mktemp("chat"))
    with serving(url, models=[small(provider, instructions="Be kind.")]) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(provider: LoopbackProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server with tokens of two users and of an administrator."""
    tokens = {TOKEN: None, ANNA: "anna", BORIS: "boris"}
    with serving(new_url(tmp_path_factory.mktemp("guarded")), tokens, models=[small(provider)]) as server:
        yield server


def sent_messages(provider: LoopbackProvider) -> list[tuple[str, str]]:
    """Return the roles and texts of the last request."""
    return [(each["role"], each["content"]) for each in provider.requests[-1]["body"]["messages"]]


def test_the_answer_is_streamed_and_recorded(server: Served) -> None:
    """The events are those of `GET /streams/{run}`, and the headers name the run and its conversation."""
    response = send(server.url, messages="Hi")
    assert response.headers["content-type"].startswith("text/event-stream")
    run_id, conversation = (response.headers[f"x-recorder-{name}"] for name in ("run", "conversation"))
    assert response.text == CLIENT.get(f"{server.url}/streams/{run_id}").text
    end = read(server.url, run_id).end
    assert end is not None
    assert (end["status"], end["finish_reason"]) == ("complete", "stop")
    found = CLIENT.get(f"{server.url}/conversations/{conversation}").json()
    assert [each["content"] for each in found["messages"]] == ["Hi", "Hello there!"]


def test_a_conversation_is_continued(server: Served, provider: LoopbackProvider) -> None:
    """The model gets its instructions, the messages before, and the new ones."""
    known = begin_chat(server.url, messages="First", conversation_id="named/by the client")
    read(server.url, known["run_id"])
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Second"}]
    response = send(server.url, messages=messages, conversation_id=known["conversation_id"])
    assert response.headers["x-recorder-conversation"] == "named%2Fby%20the%20client"
    assert sent_messages(provider) == [
        ("system", "Be kind."), ("user", "First"), ("assistant", "Hello there!"),
        ("system", "Short."), ("user", "Second"),
    ]  # fmt: skip


def test_the_history_is_bounded(tmp_path: Path, provider: LoopbackProvider) -> None:
    """With a window only the last exchanges are sent."""
    model = small(provider, memory=ConversationBufferWindowMemory(k=1))
    with serving(new_url(tmp_path), models=[model]) as server:
        for number in range(4):
            assert send(server.url, messages=f"Number {number}", conversation_id="c").status_code == 200
    assert [text for role, text in sent_messages(provider) if role == "user"] == ["Number 2", "Number 3"]


def test_the_run_goes_on_when_its_reader_leaves(database: str) -> None:
    """All of the answer is stored, and another reader gets it."""
    song = LoopbackProvider.song(tokens_per_second=400, tokens=60)
    with song as provider, serving(database, models=[small(provider)]) as server:
        body = {"model": "small", "messages": "Sing!"}
        with CLIENT.stream("POST", f"{server.url}/chat", json=body) as response:
            run_id = response.headers["x-recorder-run"]
            assert next(response.iter_raw())
        events = read(server.url, run_id)
    assert events.seqs == [*range(60)]
    assert sql(database, "SELECT status FROM runs") == [("complete",)]


def test_a_client_that_does_not_wait_gets_the_address(server: Served) -> None:
    """The answer is 202 with the path of the stream, as RFC 7240 says."""
    response = send(server.url, headers={"prefer": "wait=5, Respond-Async"}, messages="Hi")
    assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async")
    found = response.json()
    assert response.headers["location"] == found["stream"] == f"/streams/{found['run_id']}"
    assert "".join(read(server.url, found["run_id"]).texts) == "Hello there!"


@pytest.mark.parametrize("by_key", [True, False], ids=["key", "run_id"])
def test_a_repeated_request_is_the_same_run(server: Served, provider: LoopbackProvider, by_key: bool) -> None:
    """Repetitions at once and later call the provider once; another request with the same name is refused."""
    name = str(uuid.uuid4())
    named: dict[str, Any] = {"headers": {"idempotency-key": name}} if by_key else {"run_id": name}
    before = len(provider.requests)
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda _: send(server.url, messages="Once", **named), range(8))]
    found.append(send(server.url, messages="Once", **named))
    assert {response.status_code for response in found} == {200}
    assert len({response.text for response in found}) == 1
    assert len(provider.requests) == before + 1
    assert by_key or found[0].headers["x-recorder-run"] == name
    other = send(server.url, messages="Another", **named)
    assert (other.status_code, other.json()["status"]) == (409, 409)


def test_two_servers_start_a_repeated_request_once(database: str, provider: LoopbackProvider) -> None:
    """The database decides which of them calls the provider, and the clients of both get its answer."""
    before = len(provider.requests)
    with (
        serving(database, models=[small(provider)]) as one,
        serving(database, models=[small(provider)]) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        for url in (
            one.url,
            other.url,
        ):  # FastAPI makes its routes at the first request, and not on two threads at once
            assert CLIENT.get(f"{url}/models").status_code == 200
        for number in range(5):
            headers = {"idempotency-key": f"key {number}"}
            jobs = [
                threads.submit(send, url, headers=headers, messages="Once")
                for url in (one.url, other.url) * 4
            ]
            assert len({job.result().text for job in jobs}) == 1
    assert len(provider.requests) == before + 5


def test_a_cursor_continues_a_repeated_request(server: Served) -> None:
    """A client that was cut repeats its request with the last id, and gets the rest; behind the end it is 204."""
    run_id = str(uuid.uuid4())
    full = send(server.url, messages="Hi", run_id=run_id)
    rest = send(server.url, headers={"last-event-id": f"{run_id}:2"}, messages="Hi", run_id=run_id)
    assert full.text.endswith(rest.text.removeprefix("retry: 1000\n\n"))
    assert full.text.count("id:") == rest.text.count("id:") + 2
    end = {"last-event-id": full.text.rpartition("id: ")[2].partition("\n")[0]}
    assert send(server.url, headers=end, messages="Hi", run_id=run_id).status_code == 204


@pytest.mark.parametrize("cursor", ["x", "-1", f"{uuid.UUID(int=1)}:1"])
def test_a_wrong_cursor_starts_nothing(server: Served, provider: LoopbackProvider, cursor: str) -> None:
    """It is refused before the model is called."""
    before = len(provider.requests)
    assert send(server.url, headers={"last-event-id": cursor}, messages="Hi").status_code == 400
    assert len(provider.requests) == before


def test_a_token_records_for_its_user(guarded: Served) -> None:
    """The user continues own conversations only; what belongs to others does not exist."""
    known = begin_chat(guarded.url, headers=bearer(ANNA), messages="Hi", conversation_id="hers")
    read(guarded.url, known["run_id"], headers=bearer(ANNA))
    url = guarded.database.url
    assert sql(url, "SELECT user_id FROM conversations WHERE id = 'hers'") == [("anna",)]
    statuses = {
        who: send(guarded.url, headers=bearer(token), messages="More", conversation_id="hers").status_code
        for who, token in (("anna", ANNA), ("boris", BORIS), ("all", TOKEN))
    }
    assert statuses == {"anna": 200, "boris": 404, "all": 200}
    assert CLIENT.get(f"{guarded.url}{known['stream']}", headers=bearer(BORIS)).status_code == 404
    assert send(guarded.url, headers=bearer(BORIS), messages="Hi", run_id=known["run_id"]).status_code == 409


def test_a_conversation_without_a_user_is_nobodys(guarded: Served) -> None:
    """A user's token cannot make it its own."""
    with ChatHistoryCallback(guarded.database.url) as history, history.conversation("unowned"):
        record(history)
    found = send(guarded.url, headers=bearer(ANNA), messages="Hi", conversation_id="unowned")
    assert (found.status_code, found.headers["content-type"]) == (404, "application/problem+json")


def test_a_token_for_all_may_name_the_user(guarded: Served) -> None:
    """A user's token may name only its own user."""
    known = begin_chat(guarded.url, headers=bearer(TOKEN), messages="Hi", user_id="anna")
    assert "".join(read(guarded.url, known["run_id"], headers=bearer(ANNA)).texts) == "Hello there!"
    named = {"messages": "Hi", "user_id": "anna"}
    assert send(guarded.url, headers=bearer(ANNA), **named).status_code == 200
    assert send(guarded.url, headers=bearer(BORIS), **named).status_code == 403


def test_keys_of_two_users_are_two_keys(guarded: Served) -> None:
    """The same `Idempotency-Key` of another user is another run."""
    runs = {
        begin_chat(guarded.url, headers={"idempotency-key": "1", **bearer(token)}, messages="Hi")["run_id"]
        for token in (ANNA, BORIS)
    }
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("body", "expected", "place"),
    [
        ({"messages": "Hi", "model": "smal"}, 422, "did you mean 'small'"),
        ({"messages": ""}, 422, "body.messages"),
        ({"messages": []}, 422, "body.messages"),
        ({}, 422, "body.messages"),
        ({"messages": "Hi", "mesages": "Hi"}, 422, "body.mesages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 422, "role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "role user"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}]},
         422, "url"),
        ({"messages": "Hi", "run_id": "1"}, 422, "body.run_id"),
        ({"messages": "Hi", "conversation_id": ""}, 422, "conversation_id"),
        ({"messages": "Hi", "conversation_id": "x" * 256}, 422, "conversation_id"),
        ({"messages": "\ud800"}, 422, "messages"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_body_is_a_problem(server: Served, body: dict[str, Any], expected: int, place: str) -> None:
    """It names the field, and nothing is started."""
    response = CLIENT.post(f"{server.url}/chat", content=json_bytes({"model": "small", **body}), headers=JSON)
    assert (response.status_code, response.json()["status"]) == (expected, expected)
    assert place in response.json()["detail"]


JSON = {"content-type": "application/json"}


def json_bytes(body: dict[str, Any]) -> bytes:
    """Return JSON in ASCII, so that every text can be sent."""
    import json

    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"{", JSON, 422),
        (b"[" * 100_000, JSON, 400),
        (b"\xff", JSON, 400),
        (b'{"model":"small","messages":"Hi"}', {"content-type": "text/plain"}, 422),
        (b'{"model":"small","messages":"' + b"x" * 4_200_000 + b'"}', JSON, 413),
        (b"", JSON, 422),
        (b'{"model":"small","messages":"Hi"}', {**JSON, "idempotency-key": "x" * 256}, 422),
        (b'{"model":"small","messages":"Hi"}', {**JSON, "origin": "https://evil.example"}, 403),
        (b'{"model":"small","messages":"Hi"}', {**JSON, "host": "evil.example"}, 403),
    ],
    ids=["half", "deep", "bytes", "text", "long", "empty", "key", "origin", "host"],
)
def test_a_wrong_request_is_a_problem(
    server: Served, content: bytes, headers: dict[str, str], expected: int
) -> None:
    """A page of another site, which needs no permission to send text, starts nothing either."""
    response = CLIENT.post(f"{server.url}/chat", content=content, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (expected, "application/problem+json")


def test_a_failed_call_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The stream ends with the error; the log has its type and no text."""
    answer = Answer.error(400, "No such thing as secret-word")
    with (
        LoopbackProvider(answer) as provider,
        serving(new_url(tmp_path), models=[small(provider)]) as server,
        caplog.at_level(logging.INFO, "recorder"),
    ):
        run_id = begin_chat(server.url, messages="Hi")["run_id"]
        end = read(server.url, run_id).end
    assert end is not None
    assert (end["status"], "secret-word" in end["error"]) == ("error", True)
    assert "secret-word" not in caplog.text
    assert f"Run {run_id} of 'small' failed: BadRequestError" in caplog.text


@pytest.mark.parametrize("cut_after", [0, 2], ids=["before", "within"])
def test_a_provider_that_breaks_off_ends_the_stream(tmp_path: Path, cut_after: int) -> None:
    """The run is recorded with what has come, and its reader gets the end."""
    answer = Answer(frames=openai_chat_frames(WORDS), cut_after=cut_after)
    with LoopbackProvider(answer) as provider, serving(new_url(tmp_path), models=[small(provider)]) as server:
        events = read(server.url, begin_chat(server.url, messages="Hi")["run_id"])
    assert events.end is not None
    assert events.end["status"] in ("error", "interrupted", "incomplete")
    assert "".join(events.texts) == "".join(WORDS)[: len("".join(events.texts))]


def test_a_call_that_takes_too_long_is_cut(tmp_path: Path) -> None:
    """It is recorded as cancelled, with what has come."""
    with LoopbackProvider(endless()) as provider:
        model = small(provider, timeout=0.3)
        with serving(new_url(tmp_path), models=[model]) as server:
            events = read(server.url, begin_chat(server.url, messages="Hi")["run_id"])
    assert events.texts == WORDS
    assert events.end == {"status": "cancelled"}


def test_too_many_runs_are_refused(tmp_path: Path) -> None:
    """The limits of a model, of a user and of the server are told apart, and an ended run makes room."""
    tokens, limits = (
        {ANNA: "anna", BORIS: "boris"},
        ChatTable(max_runs=3, max_runs_per_user=2, drain_within=0),
    )
    with LoopbackProvider(scripted(endless())) as provider:
        models = [small(provider, max_runs=10)]
        with serving(new_url(tmp_path), tokens, models=models, limits=limits) as server:
            runs = [begin_chat(server.url, headers=bearer(ANNA), messages="Hi") for _ in range(2)]
            refused = send(server.url, headers=bearer(ANNA), messages="Hi")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "2 runs of this user" in refused.json()["detail"]
            begin_chat(server.url, headers=bearer(BORIS), messages="Hi")
            assert "3 runs of this server" in send(server.url, headers=bearer(BORIS), messages="Hi").text
            stopped = CLIENT.post(f"{server.url}{runs[0]['stream']}/stop", headers=bearer(ANNA))
            assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")
            begin_chat(server.url, headers=bearer(ANNA), messages="Hi")


def test_nothing_is_started_without_a_database(tmp_path: Path, provider: LoopbackProvider) -> None:
    """The provider is not called for an answer that cannot be recorded."""
    before = len(provider.requests)
    url = f"sqlite:///{tmp_path}/missing/folder.db"
    with serving(url, models=[small(provider)]) as server:
        assert send(server.url, messages="Hi").status_code == 503
    assert len(provider.requests) == before


def test_no_model_is_called_while_the_database_is_away(provider: LoopbackProvider) -> None:
    """A server that has recorded before refuses a new conversation, too."""
    url = postgres.new_database()
    with serving(url, models=[small(provider)]) as server:
        assert send(server.url, messages="Hi").status_code == 200
        before = len(provider.requests)
        postgres.drop(url)
        named: list[dict[str, Any]] = [{}, {"conversation_id": "c"}, {"run_id": str(uuid.uuid4())}]
        for fields in named:
            response = send(server.url, messages="Hi", **fields)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert len(provider.requests) == before


def test_the_runs_of_a_mounted_application_end_with_its_history(database: str) -> None:
    """They are recorded as interrupted, with what has come."""
    with LoopbackProvider(endless()) as provider:
        history = ChatHistoryCallback(database)
        app = FastAPI()
        app.mount("/recorder", create_app(history, models={"small": small(provider).llm}))
        with running(app) as url:
            run = begin_chat(f"{url}/recorder", messages="Hi")
            assert run["stream"] == f"/recorder/streams/{run['run_id']}"
            with CLIENT.stream("GET", url + run["stream"]) as response:
                received, chunks = "", response.iter_text()
                while '"!"' not in received:
                    received += next(chunks)
                history.close().wait(10)
            refused = send(f"{url}/recorder", messages="Hi")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    found = stored(database, run["run_id"])
    assert (found.status, [*found.texts.values()]) == ("interrupted", WORDS)


def test_the_models_are_listed(server: Served) -> None:
    """A page can offer them."""
    assert CLIENT.get(f"{server.url}/models").json() == {"models": ["small"]}
