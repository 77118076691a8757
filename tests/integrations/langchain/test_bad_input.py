"""What cannot work raises one clear sentence: another handler, no LangChain, an old one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import recorder
from recorder.errors import ConfigError
from tests.integrations.langchain.ways import MODELS, model_of
from tests.oracle import new_url

langchain: Any = pytest.importorskip("recorder.integrations.langchain")

IMPORT = "from recorder.integrations.langchain import ChatHistoryCallback"
NEEDS = "recorder.integrations.langchain needs LangChain"
INSTALL = "run: pip install 'langchain-core>=1.7'"
MISSING = "import sys; sys.modules['langchain_core'] = None"
OLD = "import langchain_core; langchain_core.__version__ = '0.3.29'"


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_handler_in_a_constructor_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """The error is LangChain's; it shows what recorder says of the object."""
    with recorder.ChatHistoryCallback(new_url(tmp_path)) as history:
        with pytest.raises(ValueError, match=r"<LangChain needs recorder\.integrations\.langchain>"):
            model_of(name, "http://localhost", callbacks=[history]).__enter__()
        assert repr(history) == "<LangChain needs recorder.integrations.langchain>"


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_the_plain_handler_in_a_config_is_an_error(way: str, tmp_path: Path) -> None:
    """The request is not sent."""
    with (
        recorder.ChatHistoryCallback(new_url(tmp_path)) as history,
        model_of("ChatOpenAI", "http://127.0.0.1:9") as model,
        pytest.raises(ConfigError, match=r"use recorder\.integrations\.langchain\.ChatHistoryCallback"),
    ):
        list(getattr(model, way)("Hi", config={"callbacks": [history]}))


@pytest.mark.parametrize(
    ("before", "error"),
    [
        (MISSING, f"{NEEDS}; {INSTALL}"),
        (OLD, f"{NEEDS} 1, and langchain-core 0.3.29 is installed; {INSTALL}"),
    ],
    ids=["missing", "old"],
)
def test_without_langchain_the_import_says_what_to_install(before: str, error: str) -> None:
    """In the environment of a user who has installed recorder alone, or has an old LangChain."""
    done = subprocess.run([sys.executable, "-c", f"{before}; {IMPORT}"], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == f"recorder.errors.ConfigError: {error}"


def test_the_handler_of_langchain_shows_itself_as_any_object(tmp_path: Path) -> None:
    """LangChain accepts it."""
    with langchain.ChatHistoryCallback(new_url(tmp_path)) as history:
        assert repr(history).startswith("<recorder.integrations.langchain.handler.ChatHistoryCallback object")
