"""Upstreams come from the configuration, which is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.server import create_app
from recorder.server.proxy.upstreams import DEFAULT_UPSTREAMS, Upstream, upstreams_from, upstreams_of_options
from tests.cli.test_commands import cli
from tests.oracle import new_url


def test_an_upstream_is_an_address_or_a_table() -> None:
    """A "/" at the end of the address does not count."""
    table: dict[str, Any] = {
        "one": "https://one.example/api/",
        "two": {"base_url": "http://127.0.0.1:8080", "wire": "ollama.chat"},
    }
    assert upstreams_from(table) == {
        "one": Upstream("one", "https://one.example/api"),
        "two": Upstream("two", "http://127.0.0.1:8080", "ollama.chat"),
    }
    assert upstreams_from(DEFAULT_UPSTREAMS) == DEFAULT_UPSTREAMS


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("streams", "https://a.example", "choose another one"), ("t", "https://a.example", "choose another one"),
        ("A b", "https://a.example", "choose another one"), ("", "https://a.example", "choose another one"),
        ("a", "ftp://a.example", "https://api.openai.com"), ("a", "a.example", "https://api.openai.com"),
        ("a", "https://", "https://api.openai.com"), ("a", "https://a.example/?x=1", "https://api.openai.com"),
        ("a", "https://a.example:x", "https://api.openai.com"), ("a", "https://a.example/ x", "https://api.openai.com"),
        ("a", "https://me:secret@a.example", "has a user"), ("a", {"url": "https://a.example"}, "unknown option url"),
        ("a", {}, "no base_url"),
        ("a", {"base_url": "https://a.example", "wire": "morse"}, "choose one of anthropic"),
    ],
)  # fmt: skip
def test_a_wrong_upstream_is_refused(name: str, fields: Any, why: str) -> None:
    """The error names it and says what to give; a password is not repeated."""
    with pytest.raises(ConfigError, match=why) as found:
        upstreams_from({name: fields})
    assert "secret" not in str(found.value)


def test_the_command_line_adds_to_those_there_are() -> None:
    """And replaces one with the same name."""
    found = upstreams_of_options(["groq=https://api.groq.com/openai", "openai=http://127.0.0.1:1"], {})
    assert sorted(found) == ["anthropic", "groq", "openai"]
    assert found["openai"].base_url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--proxy", "--replay"], "give one of them"), (["--upstream", "a=https://a.example"], "give one of them, too"),
        (["--proxy", "--upstream", "a"], "give NAME=URL"), (["--proxy", "--upstream", "a=b"], "has the base_url 'b'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_line(options: list[str], why: str, tmp_path: Path) -> None:
    """It says what to do."""
    done = cli("serve", *options, url=new_url(tmp_path))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert why in done.stderr


def test_a_proxy_needs_a_history(tmp_path: Path) -> None:
    """A URL is read only."""
    with pytest.raises(ConfigError, match="pass a ChatHistoryCallback"):
        create_app(new_url(tmp_path), upstreams={})
    with (
        ChatHistoryCallback(new_url(tmp_path)) as history,
        pytest.raises(ConfigError, match="choose another one"),
    ):
        create_app(history, upstreams={"runs": "https://a.example"})
