"""No test fails when a provider retires a model's name, of which its SDK then warns."""

from __future__ import annotations

import subprocess
import sys

import pytest
from anthropic.resources.messages import messages

from recorder.testing import LoopbackProvider
from tests.anthropics import ASK, chat, sdk
from tests.chatting import CALL_STYLES, CallStyle, name_of

MODEL = ASK["model"]
DAY = "January 22nd, 2027"
THINKING = {"type": "enabled", "budget_tokens": 1024}
FIRST_WARNING = f"The model '{MODEL}' is deprecated and will reach end-of-life on {DAY}."
SECOND_WARNING = f"Using Claude with {MODEL} and 'thinking.type=enabled' is deprecated."


@pytest.fixture(autouse=True)
def retired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the SDK warn of the tests' model, in both of its ways."""
    known: dict[str, str] = vars(messages)["DEPRECATED_MODELS"]
    monkeypatch.setitem(known, MODEL, DAY)
    monkeypatch.setattr(messages, "MODELS_TO_WARN_WITH_THINKING_ENABLED", [MODEL], raising=False)


@pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
def test_our_model_works_with_a_retired_name(style: CallStyle) -> None:
    """The SDK's warning is no error in these tests."""
    with LoopbackProvider("Hello") as provider:
        assert style.invoke(chat(provider, model=MODEL, thinking=THINKING), "Hi").content == "Hello"


def test_the_bare_sdk_works_with_a_retired_name() -> None:
    """The SDK's warning is no error in these tests."""
    with LoopbackProvider("Hello") as provider:
        [block] = sdk(provider).messages.create(**{**ASK, "thinking": THINKING}).content
    assert block.text == "Hello"


def test_users_are_still_warned() -> None:
    """Our model does not suppress the SDK's warning."""
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
def test_other_processes_have_the_same_warning_filters(
    warning_flags: list[str], category: str, text: str, code: int
) -> None:
    """In programs that tests start these two warnings pass, and every other one is an error."""
    program = "import sys, warnings; warnings.warn(sys.argv[2], getattr(__builtins__, sys.argv[1]))"
    command = [sys.executable, *warning_flags, "-c", program, category, text]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code
