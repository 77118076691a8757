"""A configuration is read, or one line says which word of which table is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.cli.served_models import configured_models
from recorder.errors import ConfigError
from recorder.server.configuration import read_configuration

FILE = """
[chat]
max_runs = 50

[models.small]
provider = "ChatOpenAI"
model = "gpt-5.4-mini"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "SOME_KEY"
instructions = "Be kind."
max_tokens = 100
history_turns = 3
timeout = 60
options = { temperature = 0.5 }

[models.large]
provider = "ChatAnthropic"
model = "claude-sonnet-5"

[recorder]
redact = ["keys", "email"]
"""


def path_of(folder: Path, text: str | bytes) -> str:
    """Write a configuration and return its path."""
    path = folder / "recorder.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_models_have_their_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the environment, and everything else from the file."""
    monkeypatch.setenv("SOME_KEY", "the-key")
    configuration = read_configuration(path_of(tmp_path, FILE))
    small, large = configured_models(configuration)
    assert (small.name, small.timeout, small.instructions) == ("small", 60, "Be kind.")
    assert (small.llm.model_name, small.llm.get_num_tokens is not None) == ("gpt-5.4-mini", True)
    assert small.llm._clients.secrets == ("the-key",)
    assert (large.name, type(large.llm).__name__) == ("large", "ChatAnthropic")
    assert (configuration.chat.max_runs, configuration.recorder) == (50, {"redact": ["keys", "email"]})


def test_a_key_of_the_environment_is_not_sent_to_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with an address and no variable of its own sends no key."""
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-openai")
    text = FILE.replace('api_key_env = "SOME_KEY"\n', "")
    small, _ = configured_models(read_configuration(path_of(tmp_path, text)))
    assert small.llm._clients.secrets == ("none",)


MODEL = '[models.small]\nprovider = "ChatOpenAI"\nmodel = "x"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[modls.small]", ["'modls'", "did you mean 'models'?"]),
        (f"{MODEL}max_tokns = 5", ["[models.small]", "'max_tokns'", "did you mean 'max_tokens'?"]),
        ('[models.small]\nmodel = "x"', ["[models.small]", "'provider'"]),
        (MODEL.replace("ChatOpenAI", "ChatOpenAi"), ["[models.small] provider", "'ChatOpenAI'"]),
        (f'{MODEL}max_tokens = "many"', ["[models.small] max_tokens"]),
        (f"{MODEL}timeout = inf", ["[models.small] timeout"]),
        ("[chat]\nmax_run = 1", ["[chat]", "'max_run'", "did you mean 'max_runs'?"]),
        ("[chat]\nmax_runs = 0", ["[chat] max_runs"]),
        ("[recorder]\nredat = []", ["[recorder]", "'redat'", "did you mean 'redact'?"]),
        ("[recorder]\non_budget = 1", ["[recorder]", "'on_budget'"]),
        ("models = 3", ["models"]),
        ("[models", ["not valid TOML"]),
        (b"\xff", ["not valid TOML"]),
        ("x" * 1_100_000, ["1,048,576 bytes"]),
    ],
    ids=lambda given: str(given)[:30],
)
def test_a_wrong_word_is_named(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    """The error is one line with the table, the word and the nearest right one."""
    with pytest.raises(ConfigError) as error:
        read_configuration(path_of(tmp_path, text))
    assert [word for word in ["recorder.toml", *words] if word not in str(error.value)] == []
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "hunter2-hunter2"',
        'api_key_env = "sk-hunter2-hunter2-hunter2"',
        'base_url = "https://anna:hunter2@example.com"',
        'base_url = "https://example.com/v1?api_key=hunter2"',
        'options = { default_headers = { Authorization = "hunter2" } }',
        'instructions = "Use sk-hunter2-hunter2-hunter2"',
        'max_tokens = "hunter2"',
    ],
)
def test_a_key_in_the_file_is_refused(tmp_path: Path, line: str) -> None:
    """Files are copied and committed. The error does not repeat the key."""
    with pytest.raises(ConfigError) as error:
        read_configuration(path_of(tmp_path, f"{MODEL}{line}"))
    assert "hunter2" not in str(error.value)
    assert "api_key_env" in str(error.value) or "max_tokens" in line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('api_key_env = "NO_SUCH_KEY"', ["api_key_env", "NO_SUCH_KEY", "export it"]),
        ("options = { temperatur = 1 }", ["[models.small]", "temperatur", "temperature"]),
        ('options = { base_url = "http://x" }', ["[models.small.options]", "base_url"]),
    ],
)
def test_a_model_that_cannot_be_made_is_named(tmp_path: Path, line: str, words: list[str]) -> None:
    """A variable that is not set, and an option that the class does not have."""
    configuration = read_configuration(path_of(tmp_path, f"{MODEL}{line}"))
    with pytest.raises(ConfigError) as error:
        configured_models(configuration)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """So is a folder."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_configuration(str(path))
