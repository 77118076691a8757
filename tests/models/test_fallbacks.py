"""`with_fallbacks` lets the next model answer, each in a run of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest
from pydantic import BaseModel

from recorder.errors import ConfigError
from recorder.models import ChatOpenAI
from recorder.models.runnable import Attempting
from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_chat_frames,
    openai_error_frame,
)
from tests import anthropics
from tests.chatting import CALL_STYLES, CallStyle, chat, history_at, name_of, runs
from tests.models.test_retries import first_run_of
from tests.oracle import new_url

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


class Joke(BaseModel):
    """A joke."""

    setup: str


@contextmanager
def two_models(
    first: Any, second: Any, **options: Any
) -> Iterator[tuple[Any, LoopbackProvider, LoopbackProvider]]:
    """Yield a model with a fallback, and the providers of both."""
    with LoopbackProvider(first) as broken, LoopbackProvider(second) as healthy:
        fallback = anthropics.chat(healthy, callbacks=options.get("callbacks"))
        yield chat(broken, **options).with_fallbacks([fallback]), broken, healthy


@both
def test_the_next_model_answers_and_both_runs_are_recorded(style: CallStyle, tmp_path: Path) -> None:
    """The first run has the status error, the second has another provider and another id."""
    url, run_id, parent = new_url(tmp_path), uuid4(), uuid4()
    with (
        history_at(url, conversation_id="c") as history,
        two_models(Answer.error(503, "Busy"), "Hello", callbacks=[history]) as (model, *_),
    ):
        config = {"run_id": run_id, "parent_run_id": parent}
        assert style.invoke(model, "Hi", config).content == "Hello"
    failed, complete = runs(url)
    assert (failed["id"], failed["status"]) == (str(run_id), "error")
    assert (complete["status"], complete["attempt"], complete["provider_name"]) == (
        "complete",
        1,
        "anthropic",
    )
    assert failed["parent_run_id"] == complete["parent_run_id"] == str(parent)
    assert failed["conversation_id"] == complete["conversation_id"] == "c"


@both
def test_if_all_fail_the_first_error_is_raised(style: CallStyle) -> None:
    """As in LangChain."""
    with two_models(Answer.error(503, "Busy"), Answer.anthropic_error(529)) as (model, *_):
        with pytest.raises(openai.InternalServerError, match="Busy"):
            style.invoke(model, "Hi")
        with pytest.raises(openai.InternalServerError, match="Busy"):
            style.stream(model, "Hi")


@both
def test_another_error_is_raised_at_once(style: CallStyle) -> None:
    """Only the given types start a fallback."""
    with LoopbackProvider(Answer.error(503, "Busy")) as broken, LoopbackProvider("Hello") as healthy:
        model = chat(broken).with_fallbacks([chat(healthy)], exceptions_to_handle=(openai.RateLimitError,))
        with pytest.raises(openai.InternalServerError):
            style.invoke(model, "Hi")
    assert healthy.requests == []


@both
def test_a_stream_changes_the_model_only_before_its_first_chunk(style: CallStyle) -> None:
    """Afterwards the error is raised: the application has a part of the answer already."""
    cut = Answer(frames=[*openai_chat_frames(["Hel", "lo"])[:2], openai_error_frame("Broken")])
    with two_models(Answer.error(503, "Busy"), "Hello") as (model, *_):
        assert "".join(chunk.text for chunk in style.stream(model, "Hi")) == "Hello"
    with two_models(cut, "Hello") as (model, _, healthy):
        with pytest.raises(openai.APIError, match="Broken"):
            style.stream(model, "Hi")
        assert healthy.requests == []


@both
def test_tools_and_forms_are_those_of_every_model(style: CallStyle) -> None:
    """A value that cannot be parsed starts the fallback, too."""
    with LoopbackProvider("no JSON") as first, LoopbackProvider('{"setup": "Why"}') as second:
        model = chat(first).with_fallbacks([chat(second)])
        assert style.invoke(model.with_structured_output(Joke), "Tell") == Joke(setup="Why")
        style.invoke(model.bind_tools([Joke]).bind(seed=7), "Tell")
    assert [provider.requests[0]["body"]["response_format"]["type"] for provider in (first, second)] == [
        "json_schema"
    ] * 2
    body = first.requests[1]["body"]
    assert (body["seed"], body["tools"][0]["function"]["name"]) == (7, "Joke")


@both
def test_fallbacks_may_be_tried_again(style: CallStyle, tmp_path: Path) -> None:
    """Each call of each model is a run. The second attempt of the first model says so."""
    url, answers = new_url(tmp_path), [Answer.error(503, "Busy"), Answer.error(503, "Busy")]

    def script(request: dict[str, Any], path: str) -> Answer | str:
        return answers.pop() if answers else "Hello"

    with history_at(url) as history, LoopbackProvider(script) as provider:
        first, second = (chat(provider, model=name, callbacks=[history]) for name in ("one", "two"))
        model = first.with_fallbacks([second]).with_retry(wait_exponential_jitter=False)
        assert style.invoke(model, "Hi").content == "Hello"
    found = runs(url)
    assert [(run["request_model"], run["status"], run["attempt"]) for run in found] == [
        ("one", "error", 1),
        ("two", "error", 1),
        ("one", "complete", 2),
    ]
    assert first_run_of(found[2]) == found[0]["id"]


def test_a_model_of_langchain_may_be_the_fallback() -> None:
    """It has the same methods."""
    langchain = pytest.importorskip("langchain_openai")
    with (
        LoopbackProvider(Answer.error(503, "Busy")) as broken,
        LoopbackProvider("Hello") as healthy,
        openai.DefaultHttpxClient(verify=False) as http,
    ):
        settings = {"model": "m", "base_url": healthy.base_url, "api_key": "any", "http_client": http}
        model = chat(broken).with_fallbacks([langchain.ChatOpenAI(**settings)])
        assert model.invoke("Hi").content == "Hello"


def test_a_fallback_must_be_a_model() -> None:
    """The name of a model is none."""
    with pytest.raises(ConfigError, match=r"with_fallbacks got 'gpt-5.4'; pass models"):
        ChatOpenAI(api_key="any").with_fallbacks(["gpt-5.4"])


def test_a_stream_without_chunks_is_an_answer() -> None:
    """A model that yields nothing has not failed."""

    class Silent:
        def stream(self, *_args: Any, **_options: Any) -> Iterator[Any]:
            return iter(())

    model = Attempting([Silent()], ChatOpenAI(api_key="any").with_retry()._rules)
    assert list(model.stream("Hi")) == []
