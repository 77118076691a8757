"""`record_all` records every run of the process without a change of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recorder import ChatHistoryCallback, ConfigError
from tests.integrations.langchain.ways import TEXT
from tests.oracle import new_url, sql

langchain: Any = pytest.importorskip("recorder.integrations.langchain")

#: In a process of its own, because the recording lasts as long as the process.
PROGRAM = f"""
import sys
from langchain_openai import ChatOpenAI
from langchain_core.runnables import RunnableLambda
from recorder.integrations.langchain import ChatHistoryCallback, record_all
from recorder.testing import LoopbackProvider

with LoopbackProvider({TEXT!r}) as provider, ChatHistoryCallback(sys.argv[1]) as history:
    record_all(history)
    record_all(history)
    model = ChatOpenAI(model="gpt-5.4-mini", base_url=provider.base_url, api_key="any")
    model.invoke("one")
    (RunnableLambda(str.upper) | model).invoke("two", config={{"configurable": {{"thread_id": "t1"}}}})
"""


def test_every_run_of_the_process_is_recorded_once(tmp_path: Path) -> None:
    """The conversation is that of the chain's config."""
    url = new_url(tmp_path)
    done = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    query = "SELECT content FROM transcripts WHERE role = 'user' ORDER BY created_at"
    assert sql(url, query) == [("one",), ("TWO",)]
    assert sql(url, "SELECT conversation_id FROM messages WHERE content = 'TWO'") == [("t1",)]


def test_another_handler_is_refused(tmp_path: Path) -> None:
    """The error names the class that is needed."""
    with (
        ChatHistoryCallback(new_url(tmp_path)) as history,
        pytest.raises(ConfigError, match=r"pass a ChatHistoryCallback of recorder\.integrations\.langchain"),
    ):
        langchain.record_all(history)
