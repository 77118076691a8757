"""`with_retry` calls a model again, each time in a run of its own, with growing pauses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import openai
import pytest

from recorder.core.trampoline import Trampoline
from recorder.errors import ConfigError
from recorder.models.attempts import ATTEMPT_KEY, Outcome, Pause, Try
from recorder.models.retries import Retries
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, openai_error_frame, scripted
from tests.chatting import CALL_STYLES, CallStyle, Log, chat, history_at, name_of, runs
from tests.oracle import new_url

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

FAILED = Outcome(error=ValueError("no"))
#: For tests that do not wait.
AT_ONCE: dict[str, Any] = {"wait_exponential_jitter": False}


def busy() -> Answer:
    """Return the answer of a provider that is overloaded."""
    return Answer.error(503, "Busy")


def first_run_of(run: dict[str, Any]) -> str | None:
    """Return the id of the first attempt's run, which a further attempt has in its metadata."""
    found: str | None = json.loads(run["metadata"] or "{}").get("first_run_id")
    return found


def followed(rules: Retries, outcome: Outcome, config: dict[str, Any]) -> list[Any]:
    """Return the steps of a call all of whose attempts end like this."""
    calls: Trampoline[Any, Outcome] = Trampoline(rules.steps(config))
    found, step = [], calls.step()
    while step is not None:
        found.append(step)
        step = calls.step(None if isinstance(step, Pause) else outcome)
    assert calls.result is outcome
    return found


# -- the rules -------------------------------------------------------------------------------------------------


def test_pauses_double_and_have_a_random_part() -> None:
    """They are LangChain's: 1, 2, 4 seconds and up to one more, and never longer than a minute."""
    found = followed(Retries(attempts=9, chance=lambda: 0.5), FAILED, {})
    pauses = [step.seconds for step in found if isinstance(step, Pause)]
    assert pauses == [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 60.0, 60.0]


@pytest.mark.filterwarnings(
    "ignore:The 'initial' parameter is deprecated:DeprecationWarning"
)  # LangChain passes it
def test_pauses_are_those_of_tenacity() -> None:
    """LangChain gives its arguments to this library."""
    tenacity = pytest.importorskip("tenacity")
    pauses = {"initial": 0.3, "max": 20.0, "exp_base": 3.0, "jitter": 0.0}
    wait = tenacity.wait_exponential_jitter(**pauses)
    found = [
        step.seconds
        for step in followed(Retries(attempts=8, pauses=pauses), FAILED, {})
        if isinstance(step, Pause)
    ]
    state = tenacity.RetryCallState(None, None, (), {})
    expected = []
    for state.attempt_number in range(1, 8):
        expected.append(wait(state))
    assert found == pytest.approx(expected)


def test_a_large_number_of_attempts_does_not_overflow() -> None:
    """The pause stays the longest one."""
    assert Retries()._pause(100_000) == 60.0


def test_each_attempt_has_a_run_of_its_own() -> None:
    """Further ones have LangChain's tag, and name the first one's run."""
    first, second, third = followed(Retries(has_pauses=False), FAILED, {"tags": ["a"]})
    run_id = first.config["run_id"]
    assert isinstance(run_id, UUID)
    assert first == Try(0, {"tags": ["a"], "run_id": run_id})
    for number, step in ((2, second), (3, third)):
        tags = ["a", f"retry:attempt:{number}"]
        assert step.config == {"tags": tags, "run_id": None, ATTEMPT_KEY: (number, run_id)}


def test_a_given_run_id_is_the_first_attempts() -> None:
    """It is what the caller looks for."""
    run_id = uuid4()
    first, second, _ = followed(Retries(has_pauses=False), FAILED, {"run_id": str(run_id)})
    assert first.config["run_id"] == run_id
    assert second.config[ATTEMPT_KEY] == (2, run_id)


@pytest.mark.parametrize(
    ("types", "count"),
    [((ValueError,), 3), (ValueError, 3), ((KeyError,), 1), (lambda error: "no" in str(error), 3), ((), 1)],
)
def test_only_the_wanted_errors_are_tried_again(types: Any, count: int) -> None:
    """They are types, or what a function accepts."""
    assert len(followed(Retries(types, has_pauses=False), FAILED, {})) == count


def test_a_success_is_the_last_attempt() -> None:
    """Nothing is called again."""
    assert len(followed(Retries(), Outcome("yes"), {})) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_after_attempt": 0}, "stop_after_attempt is 0; pass the number of attempts, 1 or more"),
        (
            {"exponential_jitter_params": {"base": 2}},
            "exponential_jitter_params has 'base'; it may have initial,",
        ),
    ],
)
def test_invalid_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    """The error says what is allowed."""
    with LoopbackProvider("Hello") as provider, pytest.raises(ConfigError, match=message):
        chat(provider).with_retry(**options)


# -- a model ---------------------------------------------------------------------------------------------------


@both
def test_a_failed_call_is_repeated_and_every_attempt_is_recorded(style: CallStyle, tmp_path: Path) -> None:
    """The first runs have the status error, the last one is complete and has the answer."""
    url = new_url(tmp_path)
    script = scripted(busy(), busy(), "Hello")
    with LoopbackProvider(script) as provider, history_at(url, conversation_id="c") as history:
        model = chat(provider, callbacks=[history]).with_retry(**AT_ONCE)
        assert style.invoke(model, "Hi").content == "Hello"
    found = runs(url)
    assert [run["status"] for run in found] == ["error", "error", "complete"]
    assert [run["attempt"] for run in found] == [1, 2, 3]
    assert list(map(first_run_of, found)) == [None, found[0]["id"], found[0]["id"]]
    assert {run["conversation_id"] for run in found} == {"c"}


@both
def test_the_last_error_is_raised(style: CallStyle) -> None:
    """It is the SDK's exception, unchanged."""
    with LoopbackProvider(scripted(busy(), Answer.error(429, "Slow down"))) as provider:
        model = chat(provider).with_retry(stop_after_attempt=2, **AT_ONCE)
        with pytest.raises(openai.RateLimitError, match="Slow down"):
            style.invoke(model, "Hi")
    assert len(provider.requests) == 2


@both
def test_another_error_is_not_tried_again(style: CallStyle) -> None:
    """Only the given types are."""
    with LoopbackProvider(busy()) as provider:
        model = chat(provider).with_retry(retry_if_exception_type=(openai.RateLimitError,), **AT_ONCE)
        with pytest.raises(openai.InternalServerError):
            style.invoke(model, "Hi")
    assert len(provider.requests) == 1


@both
def test_each_input_of_a_batch_has_its_own_attempts(style: CallStyle) -> None:
    """An input that succeeded is not sent again."""

    def script(request: dict[str, Any], path: str) -> Answer | str:
        asked = request["messages"][0]["content"]
        return busy() if asked == "two" and len(provider.requests) < 4 else asked.upper()

    with LoopbackProvider(script) as provider:
        model = chat(provider).with_retry(stop_after_attempt=5, **AT_ONCE)
        found = style.batch(model, ["one", "two", "three"], {"max_concurrency": 1})
    assert [message.content for message in found] == ["ONE", "TWO", "THREE"]


@both
def test_a_stream_is_tried_again_only_before_its_first_chunk(style: CallStyle, tmp_path: Path) -> None:
    """A provider that fails later would send the beginning twice."""
    url = new_url(tmp_path)
    cut = Answer(frames=[*openai_chat_frames(["Hel", "lo"])[:2], openai_error_frame("Broken")])
    with LoopbackProvider(scripted(busy(), "Hello", cut)) as provider, history_at(url) as history:
        model = chat(provider, callbacks=[history]).with_retry(**AT_ONCE)
        assert "".join(chunk.text for chunk in style.stream(model, "Hi")) == "Hello"
        with pytest.raises(openai.APIError, match="Broken"):
            style.stream(model, "Hi")
    assert [run["status"] for run in runs(url)] == ["error", "complete", "error"]
    assert len(provider.requests) == 3


def test_handlers_see_the_tag_of_a_further_attempt() -> None:
    """LangChain's handlers look for it."""
    log = Log()
    with LoopbackProvider(scripted(busy(), "Hello")) as provider:
        chat(provider, tags=["a"]).with_retry(**AT_ONCE).invoke("Hi", {"callbacks": [log]})
    tags = [kwargs["tags"] for _, kwargs in log.calls_of("on_chat_model_start")]
    assert tags == [["a"], ["retry:attempt:2", "a"]]


def test_a_closed_stream_is_cancelled(tmp_path: Path) -> None:
    """Closing the outer stream closes the model's."""
    url = new_url(tmp_path)
    with LoopbackProvider("Hello there, you") as provider, history_at(url) as history:
        chunks = chat(provider, callbacks=[history]).with_retry(**AT_ONCE).stream("Hi")
        next(chunks)
        chunks.close()
    assert [run["status"] for run in runs(url)] == ["cancelled"]
