"""Programs of users of other libraries are recorded without a change: each model call once, as it was answered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instrumentation.environments import PACKAGES, python_of
from tests.instrumentation.scripted_provider import HERE, SONG, SUNNY, Exchange, ScriptedProvider
from tests.oracle import ROOT, new_url, sql

PROGRAMS = Path(__file__).parent / "programs"
#: Runs the program that its argument names. Its conversations are found by the messages that it sends again.
ATTACHED = """
import runpy, sys
import recorder

with recorder.attach(callbacks=recorder.ChatHistoryCallback(thread="history")):
    runpy.run_path(sys.argv[1], run_name="__main__")
"""
PERSON = "name='Ada' age=36"
CHAT = [SONG, SONG, SUNNY, "1", "refused", HERE]
AGENT = [SONG, SONG, PERSON, SUNNY, SUNNY]
PYDANTIC_AI = [SONG, SONG, SUNNY, "refused", HERE, PERSON]
RESPONSES = [SONG, SONG, SUNNY, SUNNY, "1", "refused", HERE]
#: What each program prints: the answers that it got.
PRINTED = {
    "google_genai_chat": [*CHAT, SUNNY, SUNNY],
    "instructor_people": [PERSON, PERSON, PERSON, "refused", PERSON, PERSON, PERSON],
    "langchain_agent": [*AGENT * 2, *[SUNNY] * 4],
    "langchain_models": CHAT * 6,
    "litellm_models": CHAT * 4,
    "mistral_chat": [*CHAT, *[SONG] * 4, SONG, SONG, "1", "refused", HERE],
    "ollama_chat": [*CHAT * 2, SONG, SONG],
    "openai_agents": [SONG, SUNNY, *CHAT],
    "openai_agents_responses": RESPONSES,
    "pydantic_ai_agent": [*PYDANTIC_AI * 2, *CHAT * 2],
    "pydantic_ai_responses": RESPONSES,
}


#: The programs with an environment of their own -> its name.
ENVIRONMENTS = {"instructor_people": "instructor", "google_genai_chat": "others", "ollama_chat": "others"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the environments, which all processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


def environment_of(provider: ScriptedProvider, url: str) -> dict[str, str]:
    """Return the variables by which the libraries find the provider, and recorder its database."""
    return {
        **os.environ,
        "ANTHROPIC_API_BASE": provider.url,  # LiteLLM's name
        "ANTHROPIC_API_KEY": "any",
        "ANTHROPIC_BASE_URL": provider.url,
        "GEMINI_API_KEY": "any",
        "GOOGLE_GEMINI_BASE_URL": provider.url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MISTRAL_API_KEY": "any",
        "MISTRAL_SERVER_URL": provider.url,
        "OLLAMA_HOST": provider.url,
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "OPENAI_API_KEY": "any",
        "OPENAI_BASE_URL": provider.base_url,
        "RECORDER_URL": url,
    }


def run(way: str, name: str, python: Path, environment: dict[str, str], folder: Path) -> list[str]:
    """Run a program in one of the ways, and return the lines that it prints."""
    how = ["-m", "recorder", "run"] if way == "recorder run" else ["-c", ATTACHED]
    command = [str(python), *how, str(PROGRAMS / f"{name}.py")]
    done = subprocess.run(
        command, env=environment, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=120
    )
    return [line.strip() for line in done.stdout.splitlines()]


def recorded(url: str) -> list[Exchange]:
    """Return the stored runs, in the order in which they began."""
    query = (
        "SELECT id, request_model, status, CASE WHEN usage IS NOT NULL THEN input_tokens END, attempt "
        "FROM runs ORDER BY started_at"
    )
    return [
        Exchange(model, status, *tokens_of(url, run_id), input_tokens, attempt)
        for run_id, model, status, input_tokens, attempt in sql(url, query)
    ]


def tokens_of(url: str, run_id: str) -> tuple[str, tuple[str, object] | None]:
    """Return the text of a run, and the tool that it calls with the arguments."""
    found: dict[str, str] = {}
    for kind, text in sql(url, "SELECT kind, text FROM tokens WHERE run_id = ? ORDER BY seq", run_id):
        found[kind] = found.get(kind, "") + text
    text = found.get("text", "")
    if "tool_call" not in found:
        return text, None
    return text, (json.loads(found["tool_call"])["name"], json.loads(found["tool_args"]))


def tool_loops(url: str) -> list[list[str]]:
    """Return the roles of the messages of each conversation in which a tool is called for the weather."""
    query = "SELECT conversation_id, role FROM transcripts ORDER BY conversation_id, position"
    found: dict[str, list[str]] = {}
    for conversation, role in sql(url, query):
        found.setdefault(conversation, []).append(role)
    return [roles for roles in found.values() if "tool" in roles]


def assert_is_recorded(way: str, name: str, python: Path, folder: Path) -> None:
    """Assert that the program prints its answers, and that what the provider answered is in the database."""
    url = new_url(folder)
    with ScriptedProvider() as provider:
        printed = run(way, name, python, environment_of(provider, url), folder)
    assert printed == PRINTED[name]
    assert recorded(url) == provider.exchanges
    assert tool_loops(url) == [["user", "assistant", "tool", "assistant"]] * printed.count(SUNNY)


@pytest.mark.network
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("way", ["recorder run", "attach"])
def test_a_program_is_recorded_as_it_was_answered(way: str, name: str, folder: Path, tmp_path: Path) -> None:
    """Threads and event loops, streams and bodies, tools, streams that are left, and calls that are repeated."""
    environment = ENVIRONMENTS.get(name, "libraries")
    assert_is_recorded(way, name, python_of(environment, folder), tmp_path)


def test_a_program_with_langchain_is_recorded_as_it_was_answered(tmp_path: Path) -> None:
    """LangChain is installed with the tools for development."""
    assert_is_recorded("recorder run", "langchain_models", Path(sys.executable), tmp_path)


def test_the_page_names_every_library() -> None:
    """docs/attach.md has a row for each package of the environments in which programs are run."""
    page = (ROOT / "docs" / "attach.md").read_text(encoding="utf-8")
    for package in (each for name in PACKAGES.keys() - {"standard"} for each in PACKAGES[name]):
        assert f"`{re.split('[^a-z-]', package)[0]}`" in page


def test_every_program_is_run() -> None:
    """The programs are those whose output is known."""
    assert sorted(PRINTED) == sorted(path.stem for path in PROGRAMS.glob("*.py"))
