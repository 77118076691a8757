"""The options of a recorder: their defaults, and the errors for values that cannot work."""

from __future__ import annotations

import dataclasses
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.config import DEFAULT_URL, Config, default_url
from recorder.errors import ConfigError
from recorder.testing import MemoryStore

NUMBERS = [
    field.name for field in dataclasses.fields(Config) if "float" in str(field.type) or field.type == "int"
]


def test_the_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`default_url` returns `RECORDER_URL`; if that is unset or empty, a file in the current directory."""
    monkeypatch.setenv("RECORDER_URL", "sqlite:///elsewhere.db")
    assert default_url() == "sqlite:///elsewhere.db"
    monkeypatch.setenv("RECORDER_URL", "")
    assert default_url() == DEFAULT_URL
    monkeypatch.delenv("RECORDER_URL")
    assert default_url() == "sqlite:///chat_history.db"


def test_a_recorder_without_a_url_uses_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`ChatHistoryCallback()` opens the database of `RECORDER_URL`."""
    monkeypatch.setenv("RECORDER_URL", f"sqlite:///{tmp_path / 'named.db'}")
    with ChatHistoryCallback():
        pass
    assert (tmp_path / "named.db").exists()


def test_a_config_is_frozen() -> None:
    """Setting a field of a `Config` raises an error."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().flush_interval = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capture": "everything"}, r"capture is 'everything'; choose one of 'wire', 'tokens'"),
        ({"overflow": "drop"}, r"overflow is 'drop'; choose one of 'block', 'drop_newest'"),
        ({"sync": "off"}, r"sync is 'off'; choose one of 'full', 'process'"),
        ({"max_queue_bytes": 0}, r"max_queue_bytes is 0; it must be above zero"),
        ({"max_batch_bytes": -1}, r"max_batch_bytes is -1; it must be above zero"),
        ({"open_timeout": 0}, r"open_timeout is 0; it must be above zero"),
        ({"close_timeout": 0.0}, r"close_timeout is 0.0; it must be above zero"),
        ({"heartbeat_interval": 0}, r"heartbeat_interval is 0; it must be above zero"),
        (
            {"heartbeat_interval": 300},
            r"heartbeat_interval is 300; it can be 30 at most, because readers take",
        ),
        ({"flush_interval": -0.1}, r"flush_interval is -0.1; it cannot be negative"),
        ({"block_timeout": -1}, r"block_timeout is -1; it cannot be negative"),
        ({"interrupted_after": -1}, r"interrupted_after is -1; it cannot be negative"),
        ({"max_commits_per_second": 0}, r"max_commits_per_second"),
        ({"max_commits_per_second": -2.0}, r"max_commits_per_second"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_invalid_value_is_refused(options: dict[str, Any], message: str) -> None:
    """The error names the option, its value and the values that are allowed."""
    with pytest.raises(ConfigError, match=message):
        Config(**options)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [inf, nan, "5"], ids=repr)
def test_infinity_nan_and_text_are_refused_as_numbers(name: str, value: Any) -> None:
    """Each option that is a number refuses infinity, NaN and text when the `Config` is made."""
    with pytest.raises(ConfigError, match=name):
        Config(**{name: value})


def test_an_unknown_option_is_named() -> None:
    """The constructor refuses an unknown option and names it."""
    with pytest.raises(ConfigError, match=r"flush_intervall.*recorder\.config\.Config"):
        ChatHistoryCallback(store=MemoryStore(), flush_intervall=1)


def test_an_invalid_option_creates_no_file(tmp_path: Path) -> None:
    """The constructor refuses an invalid value before it opens the database."""
    with pytest.raises(ConfigError):
        ChatHistoryCallback(f"sqlite:///{tmp_path / 'history.db'}", flush_interval=-1)
    assert list(tmp_path.iterdir()) == []
