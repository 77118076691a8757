"""The examples of docs/serve.md work together: an application, and a client over a WebSocket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorder.testing import LoopbackProvider, song
from tests.server.serving import CLIENT
from tests.server.test_app import running
from tests.test_readme import ROOT, blocks


def test_the_client_reads_what_the_application_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The song comes over HTTP from the model's own route, and over a WebSocket from the mounted one."""
    application, client = [block for block in blocks(ROOT / "docs" / "serve.md") if block.kind == "python"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    with LoopbackProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        exec(application.text, names)
        exec(client.text, names)
        with running(names["app"]) as url, CLIENT.stream("GET", f"{url}/chat?question=Sing!") as response:
            run_id = response.headers["x-recorder-run"]
            assert response.read().decode().count("data: ") > 10
            assert "".join(names["tokens"](url.replace("http", "ws") + "/recorder", run_id)) == song()
        names["history"].close().wait(10)
