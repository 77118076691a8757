"""`recorder chat` in a real terminal and in a pipe, with a provider on loopback, and what is stored of the chat."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from recorder import ChatHistoryCallback
from recorder.cli.app import app
from recorder.cli.chat import StreamedAnswer, why
from recorder.cli.providers import Choice, choose
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, HumanMessage
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames
from tests.oracle import begin, new_url, record, sql
from tests.terminal import CTRL_C, CTRL_D, ROOT, UP, Terminal

PROMPT = "\n> "


def real(provider: LoopbackProvider) -> dict[str, str]:
    """Return an environment in which this provider is the one of the API key."""
    return {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": provider.base_url, "NO_PROXY": "127.0.0.1"}


def sent(provider: LoopbackProvider, number: int = -1) -> list[tuple[str, str]]:
    """Return the roles and texts of one request."""
    return [(each["role"], each["content"]) for each in provider.requests[number]["body"]["messages"]]


def stored(url: str) -> list[tuple[str, str, str]]:
    """Return role, content and status of every message, oldest first."""
    return sql(url, "SELECT role, content, status FROM transcripts ORDER BY created_at, position")


def conversation_of(text: str) -> str:
    """Return the conversation's id from the command that continues it."""
    return text.split("recorder chat --conversation ")[1].split()[0]


def echo(request: dict[str, Any], path: str) -> str:
    """Answer with the number of messages and the last one."""
    return f"{len(request['messages'])}: {request['messages'][-1]['content']}!"


def in_turn(*answers: Answer | str) -> Callable[[dict[str, Any], str], Answer | str]:
    """Return a script that gives these answers one after another, and the last one from then on."""
    left = list(answers)
    return lambda request, path: left.pop(0) if len(left) > 1 else left[0]


#: Variables that would choose another provider or database than the test does.
HIDDEN = ("RECORDER_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY")


def piped(
    text: bytes, *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `recorder chat` with these lines as its input, in this process: a new one takes seconds to import it."""
    variables: dict[str, str | None] = {**dict.fromkeys(HIDDEN), **environment}
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, ["chat", *arguments], input=text, env=variables, prog_name="recorder")
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout_bytes, done.stderr_bytes)


def piped_into_a_process(
    text: bytes, *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the console script `recorder chat` in a process of its own, with these lines as its input."""
    inherited = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    code = "import sys; sys.argv[0] = 'recorder'; from recorder.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "chat", *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        input=text,
        capture_output=True,
        timeout=50,
    )


# -- in a terminal -------------------------------------------------------------------------------------------


def test_a_conversation_is_recorded_and_can_be_continued(tmp_path: Path) -> None:
    """Each request contains all earlier messages, and the command that Ctrl-D prints continues the conversation."""
    url = new_url(tmp_path, "chat_history.db")
    with LoopbackProvider(echo) as provider:
        with Terminal("chat", "Hello", folder=tmp_path, environment=real(provider)) as terminal:
            terminal.wait_for("> Hello\n1: Hello!")
            terminal.wait_for(PROMPT)
            terminal.type("And then?\r")
            terminal.wait_for("3: And then?!")
            terminal.wait_for(PROMPT)
            terminal.type(CTRL_D)
            assert terminal.end() == 0
        conversation = conversation_of(terminal.text)
        earlier = [("user", "Hello"), ("assistant", "1: Hello!"), ("user", "And then?")]
        assert sent(provider) == earlier
        assert [row[:2] for row in stored(url)] == [*earlier, ("assistant", "3: And then?!")]

        with Terminal("chat", "-c", conversation, folder=tmp_path, environment=real(provider)) as terminal:
            terminal.wait_for("assistant: 3: And then?!")
            terminal.wait_for(PROMPT)
            terminal.type("Once more\r")
            terminal.wait_for("5: Once more!")
            terminal.wait_for(PROMPT)
            terminal.type("/exit\r")
            assert terminal.end() == 0
        assert conversation_of(terminal.text) == conversation
    assert sent(provider) == [*earlier, ("assistant", "3: And then?!"), ("user", "Once more")]
    # No message is stored twice, and there is only one branch.
    assert sql(url, "SELECT count(*), max(branch), count(DISTINCT conversation_id) FROM transcripts") == [
        (6, 1, 1)
    ]


def test_ctrl_c_stops_an_answer_and_stores_its_tokens(tmp_path: Path) -> None:
    """The partial answer is stored as cancelled and is part of the next request."""
    url = new_url(tmp_path, "chat_history.db")
    endless = Answer(frames=openai_chat_frames(["One", " two", " three"]), hang_after=3)
    with (
        LoopbackProvider(in_turn(endless, "Four.")) as provider,
        Terminal("chat", folder=tmp_path, environment=real(provider)) as terminal,
    ):
        terminal.wait_for(PROMPT)
        terminal.type("Count\r")
        terminal.wait_for("One two")
        terminal.type(CTRL_C)
        terminal.wait_for("Stopped; the tokens that arrived are recorded.")
        terminal.wait_for(PROMPT)
        terminal.type("Go on\r")
        terminal.wait_for("Four.")
        terminal.wait_for(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert sent(provider) == [("user", "Count"), ("assistant", "One two"), ("user", "Go on")]
    assert stored(url) == [
        ("user", "Count", "complete"),
        ("assistant", "One two", "cancelled"),
        ("user", "Go on", "complete"),
        ("assistant", "Four.", "complete"),
    ]


def test_ctrl_c_before_the_first_token_takes_the_question_back(tmp_path: Path) -> None:
    """The run is stored as cancelled, and the next request does not contain its question."""
    url = new_url(tmp_path, "chat_history.db")
    requested = threading.Event()

    def script(request: dict[str, Any], path: str) -> Answer | str:
        if requested.is_set():
            return "Yes."
        requested.set()
        return Answer(frames=[], hang_after=0)

    with LoopbackProvider(script) as provider:
        with Terminal("chat", folder=tmp_path, environment=real(provider)) as terminal:
            terminal.wait_for(PROMPT)
            terminal.type("Wait\r")
            assert requested.wait(20)
            terminal.type(CTRL_C)
            terminal.wait_for("Stopped.")
            terminal.wait_for(PROMPT)
            terminal.type("Better?\r")
            terminal.wait_for("Yes.")
            terminal.wait_for(PROMPT)
            terminal.type(CTRL_D)
            terminal.end()
        assert sent(provider) == [("user", "Better?")]
    assert sql(url, "SELECT status FROM runs ORDER BY started_at") == [("cancelled",), ("complete",)]


def test_ctrl_c_at_the_prompt_empties_the_line(tmp_path: Path) -> None:
    """It prints how to end the chat; without any question no command to continue is printed."""
    with Terminal("chat", folder=tmp_path) as terminal:
        terminal.wait_for("Neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set.")
        terminal.wait_for("A provider on this machine answers")
        terminal.wait_for(PROMPT)
        terminal.type("never mind")
        terminal.wait_for("never mind")
        terminal.press_until(CTRL_C, "Ctrl-D or /exit ends the chat.\n> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert "Continue with" not in terminal.text


def test_an_error_is_one_line_and_the_chat_continues(tmp_path: Path) -> None:
    """The question that failed is not part of the next request."""
    url = new_url(tmp_path, "chat_history.db")
    with LoopbackProvider(in_turn(Answer.error(401), "Welcome.")) as provider:
        with Terminal("chat", folder=tmp_path, environment=real(provider)) as terminal:
            terminal.wait_for(PROMPT)
            terminal.type("Let me in\r")
            terminal.wait_for("\n401: Incorrect API key provided: x.")
            terminal.wait_for(PROMPT)
            terminal.type("Please\r")
            terminal.wait_for("Welcome.")
            terminal.wait_for(PROMPT)
            terminal.type(CTRL_D)
            assert terminal.end() == 0
        assert "Traceback" not in terminal.text
        assert sent(provider) == [("user", "Please")]
    assert sql(url, "SELECT status FROM runs ORDER BY started_at") == [("error",), ("complete",)]


def test_earlier_questions_can_be_recalled_and_edited(tmp_path: Path) -> None:
    """The up key recalls the questions of a stored conversation, too."""
    url = new_url(tmp_path, "chat_history.db")
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage("Helo"), reply="Hi", metadata={"conversation_id": "old"})
    with (
        LoopbackProvider(echo) as provider,
        Terminal("chat", "-c", "old", folder=tmp_path, environment=real(provider)) as terminal,
    ):
        terminal.wait_for(PROMPT)
        terminal.type(f"{UP}\x7flo\r")
        terminal.wait_for("3: Hello!")
        terminal.wait_for(PROMPT)
        terminal.type(CTRL_D)
        terminal.end()


def test_control_characters_of_a_model_are_escaped_in_the_chat(tmp_path: Path) -> None:
    """Control characters in answers and in errors are printed as escapes."""
    says = in_turn("\x1b[2Jgone", Answer.error(400, "bad \x1b[2J"))
    with (
        LoopbackProvider(says) as provider,
        Terminal("chat", "A", folder=tmp_path, environment=real(provider)) as terminal,
    ):
        terminal.wait_for(r"\x1b[2Jgone")
        terminal.wait_for(PROMPT)
        terminal.type("B\r")
        terminal.wait_for(r"400: bad \x1b[2J")
        terminal.wait_for(PROMPT)
        terminal.type(CTRL_D)
        terminal.end()


@pytest.mark.parametrize("columns", [40, 80])
def test_earlier_messages_are_shown_as_one_line_each(columns: int, tmp_path: Path) -> None:
    """Only the last messages are shown, cut to the width; a question without an answer is left out."""
    url = new_url(tmp_path, "chat_history.db")
    history: list[Any] = []
    with ChatHistoryCallback(url, conversation_id="long") as recorder:
        for number in range(5):
            history.append(HumanMessage(f"Question {number}, " + "which is long, " * 10))
            record(recorder, *history, reply=f"Answer {number}\nin two lines, " + "and also long, " * 10)
            history.append(AIMessage(f"Answer {number}\nin two lines, " + "and also long, " * 10))
        begin(recorder, *history, HumanMessage("Are you there?"))
    with (
        LoopbackProvider(echo) as provider,
        Terminal(
            "chat", "-c", "long", folder=tmp_path, columns=columns, environment=real(provider)
        ) as terminal,
    ):
        shown = terminal.wait_for(PROMPT).split("... 4 earlier messages\n")[1].split("\n")
        terminal.type("Go on\r")
        terminal.wait_for("11: Go on!")
        terminal.wait_for(PROMPT)
        terminal.type(CTRL_D)
        terminal.end()
    assert [line.split(",")[0] for line in shown[:6]] == [
        word
        for number in (2, 3, 4)
        for word in (f"user: Question {number}", f"assistant: Answer {number} in two lines")
    ]
    assert max(len(line) for line in shown[:6]) == columns
    assert shown[6] == "(the last question has no answer and is left out)"[:columns] or shown[6].endswith("…")


# -- in a pipe -----------------------------------------------------------------------------------------------


def test_each_line_of_a_pipe_is_a_turn(tmp_path: Path) -> None:
    """Answers go to stdout, everything else to stderr."""
    with LoopbackProvider(echo) as provider:
        done = piped_into_a_process("Hällo\n\nThere\r\n".encode(), "Zero", folder=tmp_path, **real(provider))
    assert done.returncode == 0
    assert done.stdout.decode() == "1: Zero!\n3: Hällo!\n5: There!\n"
    assert conversation_of(done.stderr.decode())


def test_the_anthropic_key_chooses_anthropics_format(tmp_path: Path) -> None:
    """The request has its own field for the system message; an error shows Anthropic's message."""
    with LoopbackProvider(echo) as provider:
        environment = {
            "ANTHROPIC_API_KEY": "key",
            "ANTHROPIC_BASE_URL": provider.base_url.removesuffix("/v1"),
            "NO_PROXY": "127.0.0.1",
        }
        done = piped(b"Hello\nMore\n", "--system", "Be brief.", folder=tmp_path, **environment)
        assert (done.returncode, done.stdout) == (0, b"1: Hello!\n3: More!\n")
        assert [request["path"] for request in provider.requests] == ["/v1/messages"] * 2
        assert provider.requests[1]["body"]["system"] == "Be brief."
        again = ("-c", conversation_of(done.stderr.decode()))
        piped(b"Again\n", *again, folder=tmp_path, **environment)
        assert [message["role"] for message in provider.requests[2]["body"]["messages"]] == [
            *["user", "assistant"] * 2,
            "user",
        ]
    with LoopbackProvider(Answer.anthropic_error(401)) as provider:
        environment["ANTHROPIC_BASE_URL"] = provider.base_url.removesuffix("/v1")
        done = piped(b"Hello\n", folder=tmp_path, **environment)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"\n401: " in done.stderr


def test_invalid_utf8_in_a_pipe_is_replaced(tmp_path: Path) -> None:
    """An incomplete character is sent as U+FFFD."""
    with LoopbackProvider(echo) as provider:
        done = piped_into_a_process(b"caf\xe9\n", folder=tmp_path, **real(provider))
    assert done.stdout.decode() == "1: caf\ufffd!\n"


def test_an_error_in_a_pipe_sets_the_exit_code(tmp_path: Path) -> None:
    """The exit code is 1, and the later lines are answered."""
    with LoopbackProvider(in_turn(Answer.error(400, "Too rude."), "Fine.")) as provider:
        done = piped(b"You!\nPlease\n", folder=tmp_path, **real(provider))
    assert (done.returncode, done.stdout) == (1, b"Fine.\n")
    assert b"400: Too rude.\n" in done.stderr


def test_an_unreachable_provider_is_named(tmp_path: Path) -> None:
    """The error shows the provider's address and the reason."""
    environment = {
        "OPENAI_API_KEY": "key",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "NO_PROXY": "127.0.0.1",
    }
    done = piped(b"Hello\n", folder=tmp_path, **environment)
    assert done.returncode == 1
    assert b"\n127.0.0.1:9 cannot be reached: Connection refused\n" in done.stderr
    assert b"Traceback" not in done.stderr


def test_without_a_key_the_loopback_provider_answers(tmp_path: Path) -> None:
    """Each turn is answered with the next verse of a song, also where a proxy is set."""
    done = piped(
        b"Sing\nMore\n", folder=tmp_path, http_proxy="http://127.0.0.1:9", all_proxy="http://127.0.0.1:9"
    )
    assert [line for line in done.stdout.decode().splitlines() if line[:5] in ("Verse", "Choru")] == [
        "Verse 1",
        "Chorus",
    ]
    assert b"A provider on this machine answers" in done.stderr


def test_the_command_to_continue_has_the_given_options(tmp_path: Path) -> None:
    """It repeats provider, model and database."""
    with LoopbackProvider(echo) as provider:
        arguments = ("--model", "gpt 5", "--provider", "openai", "--url", "sqlite:///other.db")
        done = piped(b"Hello\n", *arguments, folder=tmp_path, **real(provider))
        assert provider.requests[0]["body"]["model"] == "gpt 5"
    assert done.stderr.decode().endswith("--provider openai --model 'gpt 5' --url sqlite:///other.db\n")


def test_the_command_to_continue_does_not_contain_the_password(postgres_url: str, tmp_path: Path) -> None:
    """It has `PGPASSWORD=...` in front; asterisks in the URL would be taken for the password."""
    plain = postgres_url.replace("postgres:@", "postgres@")
    with LoopbackProvider(echo) as provider:
        url = plain.replace("postgres@", "postgres:secret@")
        stderr = piped(b"Hello\n", "--url", url, folder=tmp_path, **real(provider)).stderr.decode()
    assert "secret" not in stderr
    command = shlex.split(stderr.splitlines()[-1])
    assert (command[:3], command[-2:]) == (["PGPASSWORD=...", "recorder", "chat"], ["--url", plain])


def test_the_system_message_cannot_change_when_a_conversation_continues(tmp_path: Path) -> None:
    """`--system` is the first message; another one is refused in a stored conversation."""
    with LoopbackProvider(echo) as provider:
        done = piped(b"Hello\n", "--system", "Be brief.", folder=tmp_path, **real(provider))
        assert sent(provider) == [("system", "Be brief."), ("user", "Hello")]
        conversation = conversation_of(done.stderr.decode())
        again = ("-c", conversation)
        piped(b"More\n", *again, folder=tmp_path, **real(provider))
        assert sent(provider)[0] == ("system", "Be brief.")
        piped(b"More\n", *again, "--system", "Be brief.", folder=tmp_path, **real(provider))
        assert sent(provider)[0] == ("system", "Be brief.")
        done = piped(b"More\n", *again, "--system", "Be long.", folder=tmp_path, **real(provider))
        assert len(provider.requests) == 3
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"leave --system out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", "chat-1"], "There is no file"),
        (["--provider", "openai"], "OPENAI_API_KEY is not set"),
        (["--provider", "other"], "choose one of openai, anthropic, loopback"),
        (["--url", "mysql://u:secret@h/d"], "mysql"),
    ],
)
def test_invalid_options_are_refused_before_the_first_question(
    arguments: list[str], expected: str, tmp_path: Path
) -> None:
    """There is one message with exit code 1, and no file is created."""
    done = piped(b"Hello\n", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert expected in done.stderr.decode()
    assert "secret" not in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_conversation_is_found_by_the_start_of_its_id_or_by_a_run_id(database: str, tmp_path: Path) -> None:
    """`--conversation` accepts both, on both databases."""
    with ChatHistoryCallback(database) as history:
        run = record(history, HumanMessage("Hi"), reply="Ho", metadata={"conversation_id": "träum \x00"})
    with LoopbackProvider(echo) as provider:
        for id in ("tr", str(run)):
            done = piped(b"", "Again", "-c", id, "--url", database, folder=tmp_path, **real(provider))
            assert done.returncode == 0
    assert [len(sent(provider, number)) for number in (0, 1)] == [3, 5]
    assert sql(database, "SELECT count(*) FROM conversations") == [(1,)]


# -- parts of the command ------------------------------------------------------------------------------------

BOTH = {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}


@pytest.mark.parametrize(
    ("provider", "model", "environment", "expected"),
    [
        (None, None, {}, Choice("loopback", "loopback", no_key_is_set=True)),
        (None, None, {"OPENAI_API_KEY": ""}, Choice("loopback", "loopback", no_key_is_set=True)),
        (None, None, BOTH, Choice("openai", "gpt-5.4-mini")),
        (None, None, {"ANTHROPIC_API_KEY": "b"}, Choice("anthropic", "claude-haiku-5-5")),
        (None, "claude-x", BOTH, Choice("anthropic", "claude-x")),
        (None, "claude-x", {"OPENAI_API_KEY": "a"}, Choice("openai", "claude-x")),
        ("anthropic", None, BOTH, Choice("anthropic", "claude-haiku-5-5")),
        ("loopback", "m", BOTH, Choice("loopback", "m")),
    ],
)
def test_the_provider_is_chosen_by_the_key_that_is_set(
    provider: str | None, model: str | None, environment: dict[str, str], expected: Choice
) -> None:
    """`--provider` overrides the choice."""
    assert choose(provider, model, environment) == expected


def test_a_provider_without_its_key_is_refused() -> None:
    """The key of another provider does not count."""
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        choose("anthropic", None, {"OPENAI_API_KEY": "a"})


def complete_answer(chunks: Sequence[AIMessageChunk]) -> StreamedAnswer:
    """Return a complete answer of these chunks."""
    answer = StreamedAnswer()
    for chunk in chunks:
        answer.add(chunk)
    answer.is_complete = True
    return answer


def test_reasoning_is_separated_from_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """This holds for OpenAI's fields and Anthropic's blocks, and each part ends with one line break."""
    answer = complete_answer(
        [
            AIMessageChunk("", additional_kwargs={"reasoning_content": "Hm"}),
            AIMessageChunk([{"type": "thinking", "thinking": ", so", "index": 0}]),
            AIMessageChunk([{"type": "text", "text": "Four\n", "index": 1}]),
        ]
    )
    answer.end(None)
    assert capsys.readouterr().out == "Hm, so\n\nFour\n"


def test_an_answer_that_a_limit_cut_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the finish reason of OpenAI or Anthropic."""
    for name, reason in (
        ("finish_reason", "length"),
        ("stop_reason", "max_tokens"),
        ("finish_reason", "stop"),
    ):
        complete_answer([AIMessageChunk("x", response_metadata={name: reason})]).end(None)
    assert capsys.readouterr().err.splitlines() == [
        "The answer is not complete; finish reason: length",
        "The answer is not complete; finish reason: max_tokens",
    ]


def test_a_refusal_becomes_a_message_and_a_blank_answer_does_not() -> None:
    """Providers refuse empty messages in a request."""
    refusal = complete_answer([AIMessageChunk("", additional_kwargs={"refusal": "No."})]).message()
    assert refusal is not None
    assert refusal.additional_kwargs == {"refusal": "No."}
    assert complete_answer([AIMessageChunk(" \n")]).message() is None
    assert complete_answer([]).message() is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (openai.OpenAIError("no key\nat all"), "OpenAIError: no key at all"),
        (ValueError("x" * 600), "ValueError: " + "x" * 485 + "..."),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    """Line breaks become spaces, and a long text is cut."""
    assert why(error) == line
