"""Runs without an answer are seen: in transcripts, by the commands that read, and by what plays them again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from typer.testing import CliRunner

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.errors import ConfigError
from recorder.messages import AIMessage, HumanMessage
from recorder.models import ChatAnthropic, ChatOpenAI, OpenAI, SimpleChatModel
from recorder.replay import Interrupted, Replay
from tests.oracle import begin, finish, new_url, record, say, sql

ROW = "SELECT position, branch, role, status, content, error FROM transcripts ORDER BY position, branch"


def cli(url: str, *arguments: str) -> Any:
    """A command of recorder."""
    environment = {"COLUMNS": "120", "NO_COLOR": "1", "RECORDER_URL": url}
    return CliRunner().invoke(app, list(arguments), env=environment)


def failed(history: ChatHistoryCallback, *messages: Any, error: BaseException, text: str = "") -> uuid.UUID:
    """A run that ended so, after this much of an answer."""
    run_id = begin(history, *messages)
    say(history, run_id, text)
    history.on_llm_error(error, run_id=run_id)
    return run_id


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ValueError("out of breath"), "error", "ValueError: out of breath"),
        (TimeoutError(), "error", "TimeoutError"),
        (asyncio.CancelledError(), "cancelled", None),
        (KeyboardInterrupt(), "cancelled", None),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, BaseException) else "",
)
def test_a_run_without_an_answer_has_its_row(
    database: str, error: BaseException, status: str, words: str | None
) -> None:
    """With how it ended, below what it was asked; and its conversation shows both."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        run_id = failed(history, HumanMessage("Sing!"), error=error)
    assert sql(database, ROW) == [
        (0, 1, "user", "complete", "Sing!", None),
        (1, 1, "assistant", status, None, words),
    ]
    shown = cli(database, "show", "c").stdout
    assert "user\nSing!\n\nassistant  " in shown
    assert f"{status}  run {run_id}  no text" in shown
    assert (words or "") in shown
    shown = cli(database, "show", str(run_id)).stdout
    assert "user\nSing!\n" in shown
    assert (words or "") in shown
    assert "No rows" not in cli(database, "sql", ROW).stdout


def test_an_error_is_drawn_on_its_own_branch(database: str) -> None:
    """Not under the answer that came later; the newest branch is the one with the answer."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        failed(history, HumanMessage("Sing!"), error=ValueError("out of breath"))
        history.flush().wait(10)
        record(history, HumanMessage("Sing!"), reply="La la.")
        failed(
            history,
            HumanMessage("Sing!"),
            AIMessage("La la."),
            HumanMessage("More!"),
            error=ValueError("tired"),
        )
    lines = [line.rstrip() for line in cli(database, "show", "c").stdout.splitlines()]
    at = {words: next(place for place, line in enumerate(lines) if words in line)
          for words in ("out of breath", "La la.", "More!", "tired", "branch 2", "branch 1, the newest")}  # fmt: skip
    assert sorted(at, key=at.__getitem__) == [
        "branch 2", "out of breath", "branch 1, the newest", "La la.", "More!", "tired"
    ]  # fmt: skip
    assert lines[at["out of breath"]].startswith("│  ValueError")
    assert lines[at["tired"]] == "ValueError: tired"


def test_a_partial_answer_has_its_error_beside_it(database: str) -> None:
    """What streamed before the failure is a message, and says how its run ended."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        run_id = begin(history, HumanMessage("Sing!"))
        say(history, run_id, ["La"])
        from tests.oracle import result

        history.on_llm_error(ValueError("out of breath"), run_id=run_id, response=result("La"))
    assert sql(database, ROW)[-1] == (1, 1, "assistant", "error", "La", "ValueError: out of breath")
    assert "La\nValueError: out of breath\n" in cli(database, "show", "c").stdout


# -- calls that fail before there is a request ------------------------------------------------------------------------


class OnLoopsOnly(SimpleChatModel):
    """It has no answer without an event loop."""

    async def _agenerate(self, messages: list[Any], **options: Any) -> Any:
        return "Yes."


WAYS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda model: model.invoke("Hi"),
    "stream": lambda model: list(model.stream("Hi")),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("Hi")),
    "astream": lambda model: asyncio.run(_all(model.astream("Hi"))),
}


async def _all(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda history: ChatOpenAI(model="m", callbacks=[history]), openai.OpenAIError),
        (lambda history: OpenAI(model="m", callbacks=[history]), openai.OpenAIError),
        (
            lambda history: ChatAnthropic(model="m", max_tokens=9, callbacks=[history]),
            (TypeError, anthropic.AnthropicError),
        ),
    ],
    ids=["ChatOpenAI", "OpenAI", "ChatAnthropic"],
)
def test_a_call_without_a_key_is_a_run_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Any], Any], error: Any, way: str
) -> None:
    """With what was asked, and what the SDK said; the caller gets the SDK's error."""
    for name in [name for name in os.environ if name.startswith(("OPENAI", "ANTHROPIC"))]:
        monkeypatch.delenv(name)
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history, pytest.raises(error) as raised:
        WAYS[way](make(history))
    question, answer = sql(url, ROW)
    assert question == (0, 1, "user", "complete", "Hi", None)
    assert answer[:5] == (1, 1, "assistant", "error", None)
    assert answer[5].endswith(str(raised.value))
    with Replay(url) as replay, pytest.raises(Exception) as again:
        list(replay.stream("c"))
    assert str(raised.value) in str(again.value)


def test_a_model_that_cannot_answer_here_is_a_run_that_failed(tmp_path: Path) -> None:
    """Its own model was called in the wrong way."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history, pytest.raises(ConfigError, match="only on an event loop"):
        OnLoopsOnly(callbacks=[history]).invoke("Hi")
    assert [row[3] for row in sql(url, ROW)] == ["complete", "error"]


MODELS: dict[str, Callable[[Any], Any]] = {
    "ChatOpenAI": lambda history: ChatOpenAI(model="m", api_key="k", callbacks=[history]),
    "OpenAI": lambda history: OpenAI(model="m", api_key="k", callbacks=[history]),
    "ChatAnthropic": lambda history: ChatAnthropic(model="m", api_key="k", max_tokens=9, callbacks=[history]),
    "SimpleChatModel": lambda history: Parrot(callbacks=[history]),
}
ASKED: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda model, prompt: model.invoke(prompt),
    "stream": lambda model, prompt: list(model.stream(prompt)),
    "ainvoke": lambda model, prompt: asyncio.run(model.ainvoke(prompt)),
    "astream": lambda model, prompt: asyncio.run(_all(model.astream(prompt))),
    "generate": lambda model, prompt: model.generate([prompt]),
    "astream_events": lambda model, prompt: asyncio.run(_all(model.astream_events(prompt))),
}


class Parrot(SimpleChatModel):
    """It says what it is told."""

    def _stream(self, messages: list[Any], stop: list[str] | None = None, **options: Any) -> Any:
        yield messages[-1].text


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("model", MODELS)
def test_a_call_that_makes_no_request_is_a_run_that_failed(tmp_path: Path, model: str, way: str) -> None:
    """Something among the messages is none: the row has what can be read, and the caller gets the error."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history, pytest.raises(Exception) as raised:
        ASKED[way](MODELS[model](history), ["Sing!", 42])
    first, second, failed = sql(url, ROW)
    assert (first[4], second[4]) == ("Sing!", "42")
    kind = type(raised.value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    assert failed == (2, 1, "assistant", "error", None, f"{name}: {raised.value}")


def test_a_replayed_model_raises_what_makes_no_request(tmp_path: Path) -> None:
    """It is not looked for among the recorded ones, nor recorded."""
    url = new_url(tmp_path)
    with Replay(url) as replay, pytest.raises(ConfigError, match="42"):
        replay.model(like=Parrot(), mode="new_episodes").invoke(["Sing!", 42])
    assert sql(url, ROW) == []


# -- processes that died ----------------------------------------------------------------------------------------------


def dead_process() -> int:
    """The id of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_whoever_reads_sees_that_the_process_is_dead(database: str) -> None:
    """Before anybody has stored it: listed, shown, played, followed and watched as interrupted."""
    history = ChatHistoryCallback(database, conversation_id="c")
    run_id = begin(history, HumanMessage("Sing!"))
    say(history, run_id, ["La"])
    history.flush().wait(10)
    try:
        die(database, dead_process())
        assert sql(database, "SELECT status FROM runs") == [("streaming",)]
        [listed] = json.loads(cli(database, "ls", "--json").stdout)
        shown = json.loads(cli(database, "show", "c", "--json").stdout)
        one = json.loads(cli(database, "show", str(run_id), "--json").stdout)
        statuses = [
            listed["status"],
            shown["runs"][0]["status"],
            shown["messages"][-1]["status"],
            one["status"],
        ]
        assert statuses == ["interrupted"] * 4
        assert "interrupted" in cli(database, "replay", "--instant").stderr
        assert "interrupted" in cli(database, "tail", str(run_id)).stdout
        with Replay(database) as replay:
            assert [run.status for run in replay.runs("c")] == ["interrupted"]
            for follow in (False, True):
                *_, last = replay.stream("c", speed=None, follow=follow)
                assert last.response_metadata == {"status": "interrupted"}
            ends = Ends()
            replay.into(ends, "c")
        assert ends.errors == [Interrupted]
    finally:
        die(database, os.getpid())
        finish(history, run_id, "La")
        history.close().wait(10)


class Ends:
    """A handler that notes errors."""

    def __init__(self) -> None:
        self.errors: list[type] = []

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(type(error))


def die(url: str, pid: int) -> None:
    """Let all recorders have been processes of this id on this machine."""
    change = "UPDATE producers SET pid = ?"
    if url.startswith("sqlite"):
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute(change, (pid,))
        connection.close()
    else:
        sql(url, change, pid)
