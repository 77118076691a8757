"""Each script in examples/ runs against a loopback provider and prints what its page promises."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recorder.testing import LoopbackProvider, song
from tests.oracle import ROOT, sql

EXAMPLES = ROOT / "examples"
SONG = song()
#: Runs an example by its name.
Run = Callable[[str], str]


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Yield environment variables that point both SDKs to a loopback provider."""
    with LoopbackProvider() as provider:
        yield {
            **{key: value for key, value in os.environ.items() if key != "RECORDER_URL"},
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_BASE_URL": provider.url,
            "ANTHROPIC_API_KEY": "any",
        }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path, warning_flags: list[str]) -> Run:
    """Return a function that runs an example in an empty folder and returns what it printed."""

    def run(name: str) -> str:
        command = [sys.executable, *warning_flags, str(EXAMPLES / f"{name}.py")]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        assert done.returncode == 0
        return done.stdout

    return run


@pytest.mark.parametrize("name", ["llm", "async_iterator", "serve_fastapi", "stream_route"])
def test_the_song_is_printed(run: Run, name: str) -> None:
    """The example prints all tokens of the answer."""
    assert run(name) == SONG


def test_a_server_calls_a_model(run: Run, tmp_path: Path) -> None:
    """Both answers are printed, and are in one conversation."""
    assert run("serve_chat") == f"{SONG}\n{SONG}\n['user', 'assistant', 'user', 'assistant']\n"
    query = "SELECT count(*), count(DISTINCT conversation_id) FROM runs"
    assert sql(f"sqlite:///{tmp_path / 'chat_history.db'}", query) == [(2, 1)]


@pytest.mark.parametrize(
    "name", ["attach_openai", "attach_anthropic", "attach_process", "langchain_model", "langgraph_graph"]
)
def test_an_attached_client_is_recorded(run: Run, tmp_path: Path, name: str) -> None:
    """The song is printed, and is in the default database."""
    assert run(name).rstrip() == SONG.rstrip()
    query = "SELECT role, content, status FROM transcripts ORDER BY position"
    assert sql(f"sqlite:///{tmp_path / 'chat_history.db'}", query) == [
        ("user", "Write me a song about sparkling water.", "complete"),
        ("assistant", SONG, "complete"),
    ]


@pytest.mark.parametrize("name", ["chat_openai", "chat_anthropic"])
def test_a_chat_example_prints_the_answer_and_its_usage(run: Run, name: str) -> None:
    """The example prints the answer, then the usage of the stream, whose parts add up to the total."""
    printed, _, usage = run(name).partition("\n\nusage: ")
    assert printed == SONG
    counts = ast.literal_eval(usage)
    assert counts["total_tokens"] == counts["input_tokens"] + counts["output_tokens"] > 100


def test_generate_prints_the_token_usage(run: Run) -> None:
    """`generate` with streaming returns the token usage."""
    *_, reason, usage = run("generate").splitlines()
    assert reason == "finish reason: stop"
    assert ast.literal_eval(usage.removeprefix("token usage: "))["completion_tokens"] > 100


@pytest.mark.parametrize("name", ["chat_history", "own_handler"])
def test_messages_are_stored_in_order(run: Run, name: str) -> None:
    """The question and the reply are stored once each, by `ChatHistoryCallback` and by a handler of the user's own."""
    assert [ast.literal_eval(line) for line in run(name).splitlines()] == [
        (1, "user", "Hello!"),
        (2, "assistant", SONG[:40]),
    ]


def test_redaction_stores_no_address(run: Run) -> None:
    """The application sees the answer, and the database has what stands for its secrets."""
    seen, _, stored = run("redaction").partition("What is stored:\n")
    assert "jane@example.com" in seen
    assert stored.splitlines() == [
        "user: I am [email]. Who booked my trip?",
        "assistant: Jane ([email]) booked it for [pattern], with card [card].",
    ]


@pytest.mark.parametrize("name", ["stream", "astream"])
def test_a_stream_prints_many_chunks(run: Run, name: str) -> None:
    """More than 100 chunks are printed with bars between them, and together they are the answer."""
    printed = run(name)
    assert printed.count("|") > 100
    assert printed.replace("|", "") == SONG


def test_the_event_stream_prints_its_first_four_events(run: Run) -> None:
    """The first event is the start, the next three are chunks; each has the run's name and LangSmith's metadata."""
    *events, end = run("astream_events").splitlines()
    assert end == "...Truncated"
    assert [line.partition(",")[0] for line in events] == [
        "{'event': 'on_chat_model_start'",
        *["{'event': 'on_chat_model_stream'"] * 3,
    ]
    for line in events:
        assert "'name': 'ChatAnthropic'" in line
        assert "'ls_provider': 'anthropic', 'ls_model_name': 'claude-haiku-5-5'" in line
        assert "'parent_ids': []" in line
    assert "Write me a 1 verse song about goldfish on the moon" in events[0]


def test_a_chain_prints_its_tokens(run: Run) -> None:
    """The tokens are printed as they arrive; `run` returns the whole answer."""
    assert run("llm_chain") == f"{SONG}\n\ncharacters: {len(SONG)}\n"


def test_the_events_of_a_chain_name_the_runs_around_them(run: Run) -> None:
    """The chain is around its prompt, its model and its parser, and the parser's chunks are the song."""
    lines = run("chain_events").splitlines()
    assert lines[:4] == [
        "on_chain_start RunnableSequence in 0 runs",
        "on_prompt_start PromptTemplate in 1 runs",
        "on_prompt_end PromptTemplate in 1 runs",
        "on_chat_model_start ChatAnthropic in 1 runs",
    ]
    assert lines[-1] == "on_chain_end RunnableSequence in 0 runs"
    begin, song = "on_parser_start StrOutputParser in 1 runs", "\n".join(lines[4:]).replace("|", "")
    end = "on_chat_model_end ChatAnthropic in 1 runs\non_parser_end StrOutputParser in 1 runs"
    assert song == f"{begin}\n{SONG}{end}\n{lines[-1]}"


def test_a_conversation_goes_on_after_a_restart(run: Run, tmp_path: Path) -> None:
    """The second process sends what the first one recorded, and each message is stored once."""
    printed = [run("conversation_chain") for _ in range(2)]
    assert printed == [f"{SONG}\n\nmessages before: {count}\n" for count in (0, 2)]
    query = "SELECT role, content FROM messages WHERE position >= 0 ORDER BY position"
    turn = [("user", "Write me a song about sparkling water."), ("assistant", SONG)]
    assert sql(f"sqlite:///{tmp_path / 'chat_history.db'}", query) == turn * 2


def test_a_conversation_is_stored_once(run: Run, tmp_path: Path) -> None:
    """Messages are stored once, although each call sends the whole history."""
    assert run("conversation") == "recorder show support-17\n"
    query = "SELECT conversation_id, role FROM transcripts ORDER BY position"
    assert sql(f"sqlite:///{tmp_path / 'chat_history.db'}", query) == [
        ("support-17", role) for role in ("user", "assistant", "user", "assistant")
    ]


def test_each_message_is_evaluated_while_it_streams(run: Run) -> None:
    """The sentiment of each message comes with its answer, and SQL has the mean of the conversation."""
    lines = run("sentiment").splitlines()
    labels = [line.split()[:3] for line in lines if " sentiment " in line]
    assert labels == [
        ["user", "sentiment", "negative"], ["assistant", "sentiment", "positive"],
        ["user", "sentiment", "positive"], ["assistant", "sentiment", "positive"],
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines[-2:]] == [["assistant", "2"], ["user", "2"]]


def test_a_recorded_answer_is_replayed(run: Run) -> None:
    """The replay prints the same answer, and calls a handler that was not there during the recording."""
    printed, _, longest = run("replay").partition("\n\nlongest word: ")
    assert printed == SONG
    assert longest.strip() == max(SONG.split(), key=len)


def test_a_chain_remembers_its_conversation(run: Run, tmp_path: Path) -> None:
    """The second question is sent with the first, and each message is stored once."""
    assert run("langchain_memory") == "4 messages\n"
    assert roles(tmp_path) == ["user", "assistant", "user", "assistant"]


def test_an_agent_remembers_its_conversation(run: Run, tmp_path: Path) -> None:
    """The same for an agent."""
    pytest.importorskip("agents")
    assert run("agents_session") == "4 items\n"
    assert roles(tmp_path) == ["user", "assistant", "user", "assistant"]


def test_runs_are_printed_as_spans(run: Run) -> None:
    """The span of the model's run is a child of the application's span."""
    spans = {span["name"]: span for span in map(json.loads, run("opentelemetry_spans").splitlines())}
    assert spans["chat gpt-5.4-mini"]["parent_id"] == spans["request"]["context"]["span_id"]
    assert spans["chat gpt-5.4-mini"]["attributes"]["gen_ai.usage.output_tokens"] > 100


def test_a_limit_is_reported_and_costs_are_stored(run: Run, tmp_path: Path) -> None:
    """The conversation has cost more than its budget, and the view has what it cost."""
    pytest.importorskip("genai_prices")
    lines = run("costs").splitlines()
    assert lines == [
        "conversation support-17 has cost more than $0.000010",
        "Now read the costs: recorder stats --cost",
    ]
    [(user, cost)] = sql(
        f"sqlite:///{tmp_path / 'chat_history.db'}", "SELECT user_id, cost FROM costs_by_user"
    )
    assert user == "anna"
    assert cost > 0.00001


def test_a_websocket_answers_one_question_after_the_other(run: Run, tmp_path: Path) -> None:
    """Both answers are printed, and both turns are stored in the conversation that the path names."""
    assert run("websocket_route") == SONG * 2
    assert roles(tmp_path) == ["user", "assistant", "user", "assistant"]


def test_a_bot_answers_in_each_channel(run: Run, tmp_path: Path) -> None:
    """Each channel is a conversation of its own, with its user."""
    lines = sorted(run("bot").splitlines())
    assert lines == [
        f"general: {len(SONG)} characters for anna", f"music: {len(SONG)} characters for boris"
    ]  # fmt: skip
    query = "SELECT id, user_id FROM conversations ORDER BY id"
    assert sql(f"sqlite:///{tmp_path / 'chat_history.db'}", query) == [
        ("general", "anna"),
        ("music", "boris"),
    ]


def roles(folder: Path) -> list[str]:
    """Return the roles of the stored messages, in their order."""
    rows = sql(f"sqlite:///{folder / 'chat_history.db'}", "SELECT role FROM messages ORDER BY position")
    return [role for (role,) in rows]


def test_every_example_is_run_here() -> None:
    """Each example is run by a test of this file and is listed in examples/README.md."""
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    here = Path(__file__).read_text()
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in names if f'"{name}"' not in here or f"({name}.py)" not in listed] == []
