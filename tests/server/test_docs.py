"""The examples of docs/serve.md work together: an application, a page in a browser, and a client over a WebSocket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import HTMLResponse
from playwright.sync_api import expect

from recorder.testing import LoopbackProvider, song
from tests.server.browser import apart, launched, needs_chromium, opened
from tests.server.serving import CLIENT
from tests.server.test_app import running
from tests.test_readme import ROOT, blocks

PAGE = ROOT / "docs" / "serve.md"


def application(provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """Return the names of the page's examples in Python, whose model is this provider."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks(PAGE):
        if block.kind == "python":
            exec(block.text, names)
    return names


def test_the_client_reads_what_the_application_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The song comes over HTTP from the model's own route, and over a WebSocket from the mounted one."""
    with LoopbackProvider() as provider:
        names = application(provider, monkeypatch, tmp_path)
        with running(names["app"]) as url, CLIENT.stream("GET", f"{url}/chat?question=Sing!") as response:
            run_id = response.headers["x-recorder-run"]
            assert response.read().decode().count("data: ") > 10
            assert "".join(names["tokens"](url.replace("http", "ws") + "/recorder", run_id)) == song()
        names["history"].close().wait(10)


@needs_chromium
def test_a_browser_types_the_answer_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's HTML, served by the application, asks its route, and shows the song and how it ended."""
    [html] = re.findall(r"^```html\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    with LoopbackProvider.song(tokens_per_second=200) as provider:
        names = application(provider, monkeypatch, tmp_path)
        names["app"].get("/")(lambda: HTMLResponse(html))
        with running(names["app"]) as url, launched() as browser, opened(browser, url) as page:
            page.get_by_role("button").click()
            expect(page.locator("#status")).to_have_text("complete")
            assert page.locator("#answer").text_content() == song()
        apart(lambda: names["history"].close().wait(10))
