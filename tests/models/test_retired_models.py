"""A provider may retire a model's name on any day. Its SDK then warns, and no test fails because of that."""

from __future__ import annotations

import subprocess
import sys

import pytest
from anthropic.resources.messages import messages

from recorder.testing import LoopbackProvider
from tests.anthropics import ASK, chat, sdk
from tests.chatting import ROADS, Road, name_of

MODEL = ASK["model"]
DAY = "January 22nd, 2027"
THINKING = {"type": "enabled", "budget_tokens": 1024}
FIRST_WARNING = f"The model '{MODEL}' is deprecated and will reach end-of-life on {DAY}."
SECOND_WARNING = f"Using Claude with {MODEL} and 'thinking.type=enabled' is deprecated."


@pytest.fixture(autouse=True)
def retired(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK warns of the model that the tests use, in both ways that it has."""
    known: dict[str, str] = vars(messages)["DEPRECATED_MODELS"]
    monkeypatch.setitem(known, MODEL, DAY)
    monkeypatch.setattr(messages, "MODELS_TO_WARN_WITH_THINKING_ENABLED", [MODEL], raising=False)


@pytest.mark.parametrize("road", ROADS, ids=name_of)
def test_our_model_with_a_retired_name(road: Road) -> None:
    """The answer comes, and the warning is no error here."""
    with LoopbackProvider("Hello") as provider:
        assert road.invoke(chat(provider, model=MODEL, thinking=THINKING), "Hi").content == "Hello"


def test_the_sdk_with_a_retired_name() -> None:
    """The same for tests that call the SDK itself."""
    with LoopbackProvider("Hello") as provider:
        [block] = sdk(provider).messages.create(**{**ASK, "thinking": THINKING}).content
    assert block.text == "Hello"


def test_users_are_still_warned() -> None:
    """Our model does not hide the SDK's warning from an application."""
    with LoopbackProvider("Hello") as provider, pytest.warns(DeprecationWarning, match="reach end-of-life"):
        chat(provider, model=MODEL).invoke("Hi")


@pytest.mark.parametrize(
    ("category", "text", "code"),
    [
        ("DeprecationWarning", FIRST_WARNING, 0),
        ("UserWarning", SECOND_WARNING, 0),
        ("UserWarning", FIRST_WARNING, 1),
        ("DeprecationWarning", "Something else is deprecated.", 1),
    ],
)
def test_other_processes_are_as_strict(warning_flags: list[str], category: str, text: str, code: int) -> None:
    """Programs that tests start get the same filters: these two warnings pass, every other one is an error."""
    program = "import sys, warnings; warnings.warn(sys.argv[2], getattr(__builtins__, sys.argv[1]))"
    command = [sys.executable, *warning_flags, "-c", program, category, text]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code
