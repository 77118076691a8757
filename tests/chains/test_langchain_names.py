"""docs/chains.md names every public name of LangChain's prompts and chains that is not there."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from recorder import chains

core_prompts: Any = pytest.importorskip("langchain_core.prompts")
core_parsers: Any = pytest.importorskip("langchain_core.output_parsers")
core_runnables: Any = pytest.importorskip("langchain_core.runnables")
classic: Any = pytest.importorskip("langchain_classic.chains")

from tests.langchain_surface import ELSEWHERE, REASONS, names_of  # noqa: E402

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "chains.md").read_text(encoding="utf-8")
CLASSES = {
    "PromptTemplate": core_prompts,
    "ChatPromptTemplate": core_prompts,
    "StrOutputParser": core_parsers,
    "RunnableSequence": core_runnables,
    "LLMChain": classic,
    "ConversationChain": classic,
}


def missing() -> set[str]:
    """Return the names that a class of LangChain has and ours has not, without those of all runnables."""
    found: set[str] = set()
    for name, module in CLASSES.items():
        ours = getattr(chains, name)
        known = {*dir(ours), *inspect.signature(ours.__init__).parameters}
        found |= {each for each in names_of(getattr(module, name)) if each not in known}
    return found - {*ELSEWHERE, *REASONS}


def test_each_name_that_is_not_there_is_on_the_page() -> None:
    """LangChain has a new one, or recorder has lost one: add it, or a line with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = missing()
    (table,) = re.findall(r"\| names \| in their place.*\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    listed = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert listed == expected
