"""Runs without an answer appear in `transcripts`, in the commands that read, and in replays."""

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
    """Run a command of recorder."""
    environment = {"COLUMNS": "120", "NO_COLOR": "1", "RECORDER_URL": url}
    return CliRunner().invoke(app, list(arguments), env=environment)


def failed(history: ChatHistoryCallback, *messages: Any, error: BaseException, text: str = "") -> uuid.UUID:
    """Record a run that streams this text and ends with this error."""
    run_id = begin(history, *messages)
    say(history, run_id, text)
    history.on_llm_error(error, run_id=run_id)
    return run_id


@pytest.mark.parametrize(
    ("error", "status", "error_text"),
    [
        (ValueError("out of breath"), "error", "ValueError: out of breath"),
        (TimeoutError(), "error", "TimeoutError"),
        (asyncio.CancelledError(), "cancelled", None),
        (KeyboardInterrupt(), "cancelled", None),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, BaseException) else "",
)
def test_a_run_without_an_answer_has_a_row_in_transcripts(
    database: str, error: BaseException, status: str, error_text: str | None
) -> None:
    """The row is below the question, with the run's status and error, and `recorder show` prints both."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        run_id = failed(history, HumanMessage("Sing!"), error=error)
    assert sql(database, ROW) == [
        (0, 1, "user", "complete", "Sing!", None),
        (1, 1, "assistant", status, None, error_text),
    ]
    shown = cli(database, "show", "c").stdout
    assert "user\nSing!\n\nassistant  " in shown
    assert f"{status}  run {run_id}  no text" in shown
    assert (error_text or "") in shown
    shown = cli(database, "show", str(run_id)).stdout
    assert "user\nSing!\n" in shown
    assert (error_text or "") in shown
    assert "No rows" not in cli(database, "sql", ROW).stdout


def test_an_error_is_drawn_on_its_own_branch(database: str) -> None:
    """The failed run has a branch of its own, and the newest branch is that of the later answer."""
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
    at = {text: next(place for place, line in enumerate(lines) if text in line)
          for text in ("out of breath", "La la.", "More!", "tired", "branch 2", "branch 1, the newest")}  # fmt: skip
    assert sorted(at, key=at.__getitem__) == [
        "branch 2", "out of breath", "branch 1, the newest", "La la.", "More!", "tired"
    ]  # fmt: skip
    assert lines[at["out of breath"]].startswith("│  ValueError")
    assert lines[at["tired"]] == "ValueError: tired"


def test_a_partial_answer_is_shown_with_its_error(database: str) -> None:
    """The text before the failure is a message with the run's status and error."""
    with ChatHistoryCallback(database, conversation_id="c") as history:
        run_id = begin(history, HumanMessage("Sing!"))
        say(history, run_id, ["La"])
        from tests.oracle import result

        history.on_llm_error(ValueError("out of breath"), run_id=run_id, response=result("La"))
    assert sql(database, ROW)[-1] == (1, 1, "assistant", "error", "La", "ValueError: out of breath")
    assert "La\nValueError: out of breath\n" in cli(database, "show", "c").stdout


# -- calls that fail before there is a request ------------------------------------------------------------------------


class OnLoopsOnly(SimpleChatModel):
    """A model that answers only on an event loop."""

    async def _agenerate(self, messages: list[Any], **options: Any) -> Any:
        return "Yes."


CALLS_WITHOUT_KEY: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda model: model.invoke("Hi"),
    "stream": lambda model: list(model.stream("Hi")),
    "ainvoke": lambda model: asyncio.run(model.ainvoke("Hi")),
    "astream": lambda model: asyncio.run(_all(model.astream("Hi"))),
}


async def _all(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


@pytest.mark.parametrize("way", CALLS_WITHOUT_KEY)
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
def test_a_call_without_an_api_key_is_recorded_as_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Any], Any], error: Any, way: str
) -> None:
    """The row has the question and the SDK's error, which the caller and a replay raise, too."""
    for name in [name for name in os.environ if name.startswith(("OPENAI", "ANTHROPIC"))]:
        monkeypatch.delenv(name)
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history, pytest.raises(error) as raised:
        CALLS_WITHOUT_KEY[way](make(history))
    question, answer = sql(url, ROW)
    assert question == (0, 1, "user", "complete", "Hi", None)
    assert answer[:5] == (1, 1, "assistant", "error", None)
    assert answer[5].endswith(str(raised.value))
    with Replay(url) as replay, pytest.raises(Exception) as again:
        list(replay.stream("c"))
    assert str(raised.value) in str(again.value)


def test_a_synchronous_call_of_an_asynchronous_model_is_recorded_as_a_failed_run(tmp_path: Path) -> None:
    """The question is complete, and the run has the status `error`."""
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
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda model, prompt: model.invoke(prompt),
    "stream": lambda model, prompt: list(model.stream(prompt)),
    "ainvoke": lambda model, prompt: asyncio.run(model.ainvoke(prompt)),
    "astream": lambda model, prompt: asyncio.run(_all(model.astream(prompt))),
    "generate": lambda model, prompt: model.generate([prompt]),
    "astream_events": lambda model, prompt: asyncio.run(_all(model.astream_events(prompt))),
}


class Parrot(SimpleChatModel):
    """A model that repeats the last message."""

    def _stream(self, messages: list[Any], stop: list[str] | None = None, **options: Any) -> Any:
        yield messages[-1].text


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("model", MODELS)
def test_a_call_with_an_invalid_message_is_recorded_as_a_failed_run(
    tmp_path: Path, model: str, way: str
) -> None:
    """The row has the readable messages and the error, which the caller gets, too."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history, pytest.raises(Exception) as raised:
        CALLS[way](MODELS[model](history), ["Sing!", 42])
    first, second, failed = sql(url, ROW)
    assert (first[4], second[4]) == ("Sing!", "42")
    kind = type(raised.value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    assert failed == (2, 1, "assistant", "error", None, f"{name}: {raised.value}")


def test_a_replayed_model_refuses_an_invalid_message(tmp_path: Path) -> None:
    """The call is neither looked up nor recorded."""
    url = new_url(tmp_path)
    with Replay(url) as replay, pytest.raises(ConfigError, match="42"):
        replay.model(like=Parrot(), mode="new_episodes").invoke(["Sing!", 42])
    assert sql(url, ROW) == []


# -- processes that died ----------------------------------------------------------------------------------------------


def dead_process() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_readers_report_an_open_run_of_a_dead_process_as_interrupted(database: str) -> None:
    """`ls`, `show`, `replay`, `tail` and `Replay` do so before the run's stored status has changed."""
    history = ChatHistoryCallback(database, conversation_id="c")
    run_id = begin(history, HumanMessage("Sing!"))
    say(history, run_id, ["La"])
    history.flush().wait(10)
    try:
        set_pid(database, dead_process())
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
            ends = ErrorTypes()
            replay.into(ends, "c")
        assert ends.errors == [Interrupted]
    finally:
        set_pid(database, os.getpid())
        finish(history, run_id, "La")
        history.close().wait(10)


class ErrorTypes:
    """A handler that stores the types of errors."""

    def __init__(self) -> None:
        self.errors: list[type] = []

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(type(error))


def set_pid(url: str, pid: int) -> None:
    """Set the process id of all recorders in the database."""
    change = "UPDATE producers SET pid = ?"
    if url.startswith("sqlite"):
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute(change, (pid,))
        connection.close()
    else:
        sql(url, change, pid)
