"""docs/like-langchain.md says of every public name of LangChain's chat models whether it is there, and if not, why."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("langchain_anthropic")

from tests.langchain_surface import ELSEWHERE, PAGE, REASONS, kind_in, replaced, rows, tables

each_class = pytest.mark.parametrize("name", ["ChatOpenAI", "ChatAnthropic"])


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Reading all attributes of a class of Pydantic's warns of the deprecated ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@each_class
def test_every_name_that_is_not_there_has_a_reason(name: str) -> None:
    """LangChain has a new one, or recorder has lost one: add it, or its reason to tests/langchain_surface.py."""
    found = rows(*tables()[name])
    assert [each for each, kind, reason in found if kind == "no" and not reason] == []


def test_the_page_has_the_tables() -> None:
    """`python -m tests.langchain_surface` writes them."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == replaced(page)
    for name, arguments in tables().items():
        assert page.count(f"| name in `{name}` ") == 1
        assert sum(1 for _ in rows(*arguments)) > 90


def test_no_reason_is_left_over() -> None:
    """A name that is there now, or that LangChain has no more, needs none."""
    missing = {each for arguments in tables().values() for each, kind, _ in rows(*arguments) if kind == "no"}
    assert {*ELSEWHERE, *REASONS} - missing == set()


def test_the_methods_of_a_model_are_there() -> None:
    """The ones that applications call are methods of both classes."""
    for _, ours, options in tables().values():
        for name in (
            "invoke", "ainvoke", "stream", "astream", "batch", "abatch", "generate", "agenerate", "astream_events",
            "bind", "bind_tools", "with_structured_output", "with_retry", "with_fallbacks", "with_config",
            "get_num_tokens", "get_num_tokens_from_messages",
        ):  # fmt: skip
            assert kind_in(name, ours, options) == "method"
