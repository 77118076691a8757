"""The examples of docs/serve.md work together: applications, a page, clients, a configuration and commands."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.responses import HTMLResponse
from playwright.sync_api import expect

from recorder.testing import LoopbackProvider, song
from tests.oracle import new_url
from tests.server.browser import apart, launched, needs_chromium, opened
from tests.server.serving import CLIENT, serving_processes
from tests.server.test_app import running
from tests.test_readme import ROOT, blocks

PAGE = ROOT / "docs" / "serve.md"
APPLICATION, CLIENT_CODE, GUARDED = [block.text for block in blocks(PAGE) if block.kind == "python"]


def fenced(kind: str) -> list[str]:
    """Return the blocks of one kind that are not Python."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackProvider]:
    """Yield a provider that the environment names, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with LoopbackProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        yield provider


def curl(command: str) -> httpx.Response:
    """Send the request of a command line of curl."""
    program, *words = shlex.split(command.replace("\\\n", " "))
    assert program == "curl"
    method, url, headers, content = "GET", "", {}, None
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            method, content = "POST", words.pop(0)
        elif word != "-N":
            url = word
    return CLIENT.request(method, url, headers=headers, content=content)


def test_the_client_reads_what_the_application_streams(provider: LoopbackProvider) -> None:
    """The song comes over HTTP from the model's own route, and over a WebSocket from the mounted one."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(APPLICATION, names)
    exec(CLIENT_CODE, names)
    with running(names["app"]) as url, CLIENT.stream("GET", f"{url}/chat?question=Sing!") as response:
        run_id = response.headers["x-recorder-run"]
        assert response.read().decode().count("data: ") > 10
        assert "".join(names["tokens"](url.replace("http", "ws") + "/recorder", run_id)) == song()
    names["history"].close().wait(10)


@needs_chromium
def test_a_browser_types_the_answer_of_the_application(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The page's HTML, served by the application, asks its route, and shows the song and how it ended."""
    [html] = fenced("html")
    monkeypatch.chdir(tmp_path)
    with LoopbackProvider.song(tokens_per_second=200) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        names: dict[str, Any] = {"__name__": "example"}
        exec(APPLICATION, names)
        names["app"].get("/")(lambda: HTMLResponse(html))
        with running(names["app"]) as url, launched() as browser, opened(browser, url) as page:
            page.get_by_role("button").click()
            expect(page.locator("#status")).to_have_text("complete")
            assert page.locator("#answer").text_content() == song()
        apart(lambda: names["history"].close().wait(10))


def test_the_application_says_who_it_is(provider: LoopbackProvider) -> None:
    """A session calls the model and reads the run; without one the answer is 401."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(GUARDED, names)
    body = {"model": "small", "messages": "Sing!"}
    with running(names["guarded"]) as address:
        refused = CLIENT.post(f"{address}/recorder/chat", json=body)
        assert (refused.status_code, refused.json()["detail"]) == (401, "Log in first")
        headers = {"cookie": "session=a-session", "prefer": "respond-async"}
        found = CLIENT.post(f"{address}/recorder/chat", json=body, headers=headers)
        assert found.headers["location"].startswith("/recorder/streams/")
        assert CLIENT.get(address + found.headers["location"], headers=headers).text.count("data: ") > 10
    names["guarded_history"].close().wait(10)


def test_a_configured_model_is_called_and_stopped(provider: LoopbackProvider, tmp_path: Path) -> None:
    """The configuration and both commands of the page, in their order."""
    [configuration], [chat, stop] = fenced("toml"), fenced("sh")
    Path("recorder.toml").write_text(configuration)
    options = ("--config", "recorder.toml")
    with serving_processes(new_url(tmp_path), 1, *options) as [(process, address)]:
        answer = curl(chat.replace("http://127.0.0.1:8765", address))
        assert (answer.status_code, answer.headers["x-recorder-conversation"]) == (200, "songs")
        run_id = answer.headers["x-recorder-run"]
        stopped = curl(stop.replace("http://127.0.0.1:8765", address).replace("$RUN", run_id))
        assert stopped.json() == {"run_id": run_id, "status": "complete"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert provider.requests[0]["body"]["messages"][0] == {"role": "system", "content": "You write songs."}
