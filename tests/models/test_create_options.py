"""An argument that neither the model nor the SDK knows is refused when the model is made."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from recorder.errors import ConfigError
from recorder.models import AzureChatOpenAI, ChatAnthropic, ChatOpenAI, OpenAI
from recorder.models.create_options import (
    CHAT_OPTIONS,
    COMPLETION_OPTIONS,
    MESSAGES_OPTIONS,
    CreateOptions,
)
from recorder.testing import LoopbackProvider
from tests.chatting import chat

MODELS: dict[str, tuple[Callable[..., Any], CreateOptions]] = {
    "ChatOpenAI": (lambda **more: ChatOpenAI(api_key="any", **more), CHAT_OPTIONS),
    "AzureChatOpenAI": (
        lambda **more: AzureChatOpenAI(azure_deployment="d", api_key="any", **more),
        CHAT_OPTIONS,
    ),
    "OpenAI": (lambda **more: OpenAI(api_key="any", **more), COMPLETION_OPTIONS),
    "ChatAnthropic": (lambda **more: ChatAnthropic(api_key="any", **more), MESSAGES_OPTIONS),
}
each_model = pytest.mark.parametrize("name", MODELS)
#: What every model makes itself, and `metadata`, which is that of the run.
OWN = {"self", "model", "messages", "input", "prompt", "metadata"}


@each_model
def test_a_misspelt_argument_is_refused_with_the_nearest_one(name: str) -> None:
    """The error names the argument and where an option of the request goes, and no value."""
    make, _ = MODELS[name]
    with pytest.raises(ConfigError) as caught:
        make(temprature=0.5)
    message = str(caught.value)
    assert message.startswith(f"{name} has no argument 'temprature'; did you mean 'temperature'? ")
    assert "model_kwargs={'temprature': ...}" in message
    assert "0.5" not in message


@each_model
def test_an_argument_like_no_other_is_refused(name: str) -> None:
    """No other one is proposed. The model's own arguments are proposed, too."""
    make, _ = MODELS[name]
    with pytest.raises(ConfigError, match=rf"^{name} has no argument 'xyzzy'\. Pass model_kwargs"):
        make(xyzzy=1)
    with pytest.raises(ConfigError, match="did you mean 'max_retries'"):
        make(max_retry=1)


@each_model
def test_the_list_has_every_option_of_the_installed_sdk(name: str) -> None:
    """Without it, the first use of a new option would load the SDK in the constructor."""
    _, options = MODELS[name]
    assert options.in_sdk() - options.known <= OWN
    assert options.in_sdk() >= {"extra_body", "tools" if options is not COMPLETION_OPTIONS else "prompt"}


@each_model
def test_every_option_of_the_sdk_is_an_argument(name: str) -> None:
    """Each one of each method can be passed."""
    make, options = MODELS[name]
    for module, kind in options.resources:
        create = getattr(import_module(module), kind).create
        for option in inspect.signature(create).parameters.keys() - OWN:
            make(**{option: None})


def test_an_option_of_a_newer_sdk_is_accepted() -> None:
    """The signature of the installed SDK counts, not only the list."""
    older = CreateOptions(frozenset(), COMPLETION_OPTIONS.resources)
    older.check("OpenAI", ["best_of"], OpenAI.__init__)
    with pytest.raises(ConfigError):
        older.check("OpenAI", ["best_off"], OpenAI.__init__)


def test_an_sdk_without_the_class_has_no_options() -> None:
    """Another version may have moved it; then the list counts."""
    moved = CreateOptions(frozenset(("best_of",)), (("openai.resources.no_such_module", "Gone"),))
    moved.check("OpenAI", ["best_of"], OpenAI.__init__)
    assert moved.in_sdk() == frozenset()


def test_known_options_load_no_sdk() -> None:
    """Making a model stays cheap."""
    code = (
        "import sys; from recorder.models import ChatOpenAI, ChatAnthropic; "
        "ChatOpenAI(temperature=1, seed=7); ChatAnthropic(top_k=1, betas=[]); "
        "print([name for name in ('openai', 'anthropic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_model_kwargs_and_extra_body_are_sent_unseen() -> None:
    """`model_kwargs` are options of `create`, `extra_body` has any field."""
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, model_kwargs={"seed": 7}, extra_body={"top_k": 5})
        model.invoke("Hi")
    body = provider.requests[0]["body"]
    assert (body["seed"], body["top_k"]) == (7, 5)
