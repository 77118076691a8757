"""The files of the page: their policy, their addresses, what they weigh, and that they need no token."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from recorder.server import create_app
from recorder.server.page_files import page_files
from tests.oracle import ROOT, new_url
from tests.server.serving import CLIENT, TOKEN, Served, serving
from tests.server.test_app import running

#: What all files weigh together, as they are sent (bytes).
MOST = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server that needs a token."""
    with serving(new_url(tmp_path_factory.mktemp("page")), {TOKEN: None}) as found:
        yield found


def files_of(html: str) -> list[str]:
    """Return the addresses of the files that the page loads."""
    return re.findall(r'(?:href|src)="(page/[^"]+)"', html)


def test_the_page_is_small_and_needs_no_token(server: Served) -> None:
    """Each file has its type and may be stored for ever, since its address changes with its content."""
    index = CLIENT.get(server.url)
    found = {path: CLIENT.get(f"{server.url}/{path}") for path in files_of(index.text)}
    assert {path.rpartition("/")[2] for path in found} == set(page_files().by_name) - {"index.html"}
    for path, answer in found.items():
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    types = {path.rpartition(".")[2]: answer.headers["content-type"] for path, answer in found.items()}
    assert types == {
        "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"
    }  # fmt: skip
    assert sum(len(answer.content) for answer in (index, *found.values())) < MOST
    assert CLIENT.get(f"{server.url}/conversations").status_code == 401


def test_every_file_has_the_policy(server: Served) -> None:
    """It allows these files and nothing else; scripts and styles are never part of the HTML."""
    index = CLIENT.get(server.url)
    for path in ("", *files_of(index.text)):
        headers = CLIENT.get(f"{server.url}/{path}").headers
        policy = dict(each.split(" ", 1) for each in headers["content-security-policy"].split("; "))
        assert policy.pop("require-trusted-types-for") == "'script'"
        allowed = {"script-src", "style-src", "img-src", "connect-src"}
        assert {name for name, value in policy.items() if value == "'self'"} == allowed
        assert all(policy[name] == "'none'" for name in policy.keys() - allowed)
        assert {"default-src", "base-uri", "form-action", "frame-ancestors"} <= policy.keys()
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", index.text) == []


def test_a_browser_asks_for_what_is_new(server: Served) -> None:
    """The page itself is checked each time by its ETag; a file of another version is sent, but not stored."""
    index = CLIENT.get(server.url)
    again = CLIENT.get(server.url, headers={"if-none-match": index.headers["etag"]})
    assert (index.headers["cache-control"], again.status_code, again.content) == ("no-cache", 304, b"")
    other = CLIENT.get(f"{server.url}/page/before/app.js")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    assert CLIENT.head(server.url).status_code == 200


def test_only_the_files_of_the_page_are_open(server: Served) -> None:
    """No other file is served, no other route is reached, and Host and Origin are checked here too."""
    for path in (
        "page/x/index.html",
        "page/x/../../app.py",
        "page/x/%2e%2e%2fapp.py",
        "page/x/y/z",
        "page/x/",
    ):
        assert CLIENT.get(f"{server.url}/{path}").status_code in (401, 404), path
    for path in ("page", "page/../conversations", "/conversations", "conversations/page/x", "openapi.json"):
        assert CLIENT.get(f"{server.url}/{path}").status_code == 401, path
    assert CLIENT.post(server.url).status_code == 405
    assert CLIENT.get(server.url, headers={"origin": "https://attack.test"}).status_code == 403


def test_an_installed_package_has_them(tmp_path: Path) -> None:
    """The wheel has each file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {each.rpartition("/")[2] for each in archive.namelist() if "server/page/" in each}
    assert names == set(page_files().by_name)


def test_a_mounted_page_is_below_its_path(tmp_path: Path) -> None:
    """The path without its last slash leads to the page; the application around it is not touched."""
    app = FastAPI()
    app.mount("/recorder", create_app(new_url(tmp_path), tokens={TOKEN: None}))
    with running(app) as url:
        assert CLIENT.get(f"{url}/recorder").headers["location"] == f"{url}/recorder/"
        index = CLIENT.get(f"{url}/recorder/")
        assert [CLIENT.get(f"{url}/recorder/{path}").status_code for path in files_of(index.text)[:2]] == [
            200
        ] * 2
        assert CLIENT.get(f"{url}/recorder/conversations").status_code == 401
        assert CLIENT.get(url).status_code == 404
