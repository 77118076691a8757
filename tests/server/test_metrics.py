"""`GET /metrics` has readers, runs, answers, bytes and the recorder's queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server.configuration import ChatTable
from recorder.testing import Answer, LoopbackProvider
from recorder.testing.openai_chat import openai_chat_frames
from tests.oracle import new_url, record
from tests.server.serving import CLIENT, TOKEN, Served, begin_chat, read, serving, small

ANNA = "a-token-of-the-user-anna"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server with tokens, and a model whose answers have no end."""
    url = new_url(tmp_path_factory.mktemp("metrics"))
    answer = Answer(frames=openai_chat_frames(["Hello", "!"]), hang_after=3)
    with LoopbackProvider(answer) as provider:
        models, limits = [small(provider)], ChatTable(drain_within=0)
        with serving(url, {TOKEN: None, ANNA: "anna"}, models=models, limits=limits) as server:
            yield server


def bearer(token: str = TOKEN) -> dict[str, str]:
    """Return the header with a token."""
    return {"authorization": f"Bearer {token}"}


def metrics(server: Served) -> dict[str, float]:
    """Return each sample, without those of histograms, by its name and its labels."""
    response = CLIENT.get(f"{server.url}/metrics", headers=bearer())
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(response.text)
        if family.type != "histogram"
        for sample in family.samples
    }


def test_answers_are_counted_by_route_and_status(server: Served) -> None:
    """A route is its template, and what has none is counted together."""
    with ChatHistoryCallback(server.database.url) as history:
        run_ids = [record(history) for _ in range(3)]
    before = metrics(server)
    for run_id in run_ids:
        read(server.url, run_id, headers=bearer())
    for path in ("/conversations/secret-one", "/conversations/secret-two", "/secret-three", "/secret-four"):
        CLIENT.get(server.url + path, headers=bearer())
    CLIENT.get(f"{server.url}/secret-five")
    CLIENT.request("PROPFIND", f"{server.url}/secret-six", headers=bearer())
    after = metrics(server)
    name = "recorder_http_answers_total "
    counts = {key: after[key] - before.get(key, 0) for key in after if key.startswith(name)}
    assert {key.removeprefix(name): count for key, count in counts.items() if count} == {
        "GET /metrics 200": 1, "GET /streams/{run} 200": 3, "GET /conversations/{id:text} 404": 2,
        "GET none 404": 2, "GET none 401": 1, "other none 404": 1,
    }  # fmt: skip
    assert after["recorder_http_sent_bytes_total"] > before["recorder_http_sent_bytes_total"]
    assert not [key for key in after if "secret" in key]


def test_readers_and_runs_are_counted_while_they_are_there(server: Served) -> None:
    """So are the tokens of the recorder's queue."""
    run = begin_chat(server.url, headers=bearer(), messages="Hi")
    with CLIENT.stream("GET", server.url + run["stream"], headers=bearer()) as response:
        pieces = response.iter_raw()  # its end would close the response
        assert any(b"data: " in piece for piece in pieces)
        found = metrics(server)
        assert (found["recorder_readers"], found["recorder_served_runs"]) == (1, 1)
        assert 0 <= found["recorder_slowest_reader_seconds"] < 30
    CLIENT.post(f"{server.url}{run['stream']}/stop", headers=bearer())
    found = metrics(server)
    assert found["recorder_served_runs"] == 0
    assert found["recorder_recording_committed_total"] == found["recorder_recording_accepted_total"] == 2
    assert (found["recorder_recording_dropped_total"], found["recorder_recording_healthy"]) == (0, 1)


def test_only_a_token_for_all_reads_them(server: Served) -> None:
    """They tell of all users."""
    statuses = [CLIENT.get(f"{server.url}/metrics", headers=each).status_code for each in ({}, bearer(ANNA))]
    assert statuses == [401, 403]


def test_two_applications_have_two_registries(server: Served, tmp_path: Path) -> None:
    """Nothing of one is counted in the other, and nothing in the process's own registry."""
    with serving(new_url(tmp_path)) as other:
        response = CLIENT.get(f"{other.url}/metrics")
    assert "recorder_http_answers_total{" not in response.text
    assert "recorder_recording" not in response.text  # it only reads
