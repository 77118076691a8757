"""The examples of docs/proxy.md, in the runtimes that are here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.testing import LoopbackProvider, song
from tests.oracle import ROOT, new_url, sql
from tests.server.proxy.javascript_clients import installed
from tests.server.proxy.proxying import KEY, Proxied, proxying

_FENCE = re.compile(r"^```(python|javascript|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = "http://127.0.0.1:8765"


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxied]:
    """Yield a proxy before a provider; the environment has the client's key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackProvider() as provider, proxying(new_url(tmp_path), {"openai": provider.url}) as found:
        yield found


def examples(kind: str, proxy: Proxied) -> list[str]:
    """Return the page's examples of a language, with the address of this proxy."""
    text = (ROOT / "docs" / "proxy.md").read_text(encoding="utf-8")
    return [code.replace(_ADDRESS, proxy.url) for each, code in _FENCE.findall(text) if each == kind]


def test_python(proxy: Proxied, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream, and one that its client resumes."""
    for code in examples("python", proxy):
        names: dict[str, object] = {}
        exec(code, names)
        names["client"].close()  # type: ignore[attr-defined]
        assert capsys.readouterr().out.strip() == song()
    # The call that was resumed is one run.
    assert [row[0] for row in sql(proxy.stored(), "SELECT status FROM runs")] == ["complete", "complete"]


def test_javascript(proxy: Proxied) -> None:
    """The same stream, in the conversation that the example names."""
    folder = installed()
    for number, code in enumerate(examples("javascript", proxy)):
        file = folder / f"example-{os.getpid()}-{number}.mjs"
        file.write_text(code, encoding="utf-8")
        try:
            done = subprocess.run(
                ["node", str(file)], capture_output=True, text=True, timeout=50, check=False
            )
        finally:
            file.unlink()
        assert (done.returncode, done.stdout) == (0, song()), done.stderr
    query = "SELECT r.conversation_id, c.user_id FROM runs r JOIN conversations c ON c.id = r.conversation_id"
    assert [tuple(row) for row in sql(proxy.stored(), query)] == [("a talk", "anna")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(proxy: Proxied) -> None:
    """The provider's events."""
    for code in examples("bash", proxy):
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=50, check=True)
        assert done.stdout.startswith("data: {")
        assert done.stdout.endswith("data: [DONE]\n\n")
