"""`PromptTemplate`: a text with variables."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from recorder.chains import PromptTemplate
from recorder.errors import ConfigError
from recorder.messages import HumanMessage


def test_a_prompt_is_filled_in_every_way() -> None:
    """`format`, `format_prompt`, `invoke`, `ainvoke`, `stream` and `batch` give the same text."""
    prompt = PromptTemplate.from_template("Sing about {topic}.")

    async def main() -> list[Any]:
        assert await prompt.aformat(topic="water") == prompt.format(topic="water")
        assert await prompt.aformat_messages(topic="water") == prompt.format_messages(topic="water")
        last = await prompt.aformat_prompt(topic="water")
        return [await prompt.ainvoke("water"), *[value async for value in prompt.astream("water")], last]

    values = [
        prompt.format_prompt(topic="water"),
        prompt.invoke({"topic": "water"}),
        prompt.invoke("water"),
        *prompt.stream("water"),
        *prompt.batch(["water"]),
        *asyncio.run(main()),
    ]
    assert [value.to_string() for value in values] == [prompt.format(topic="water")] * 8
    assert values[0].to_messages() == [HumanMessage("Sing about water.")]
    assert prompt.input_variables == ["topic"]


def test_partial_variables_have_a_value_or_a_function() -> None:
    """A function is called for each use, and a given value overrides a partial one."""
    numbers = iter(range(9))
    prompt = PromptTemplate.from_template("{a} {b} {c}", partial_variables={"a": lambda: next(numbers)})
    both = prompt.partial(b="B")
    assert (prompt.input_variables, both.input_variables) == (["b", "c"], ["c"])
    assert [both.format(c="C"), both.invoke("C").text, both.format(c="C", b="X")] == [
        "0 B C",
        "1 B C",
        "2 X C",
    ]
    assert prompt.input_variables == ["b", "c"]


def test_prompts_are_added() -> None:
    """A text or another prompt comes behind; a value for one name twice is refused."""
    prompt = PromptTemplate.from_template("{a} ") + "{b} " + PromptTemplate.from_template("{a}")
    assert prompt.format(a=1, b=2) == "1 2 1"
    known = PromptTemplate.from_template("{a}", partial_variables={"a": 1})
    with pytest.raises(ConfigError, match="'a'"):
        _ = known + known
    with pytest.raises(TypeError):
        _ = prompt + 3


def test_a_prompt_is_made_of_a_file_and_of_examples(tmp_path: Path) -> None:
    """`from_file` reads UTF-8; `from_examples` joins prefix, examples and suffix."""
    (tmp_path / "prompt.txt").write_text("Größe: {a}", encoding="utf-8")
    assert PromptTemplate.from_file(tmp_path / "prompt.txt").format(a=1) == "Größe: 1"
    prompt = PromptTemplate.from_examples(["x", "y"], "{a}", ["a"], prefix="p", example_separator="-")
    assert prompt.format(a="z") == "p-x-y-z"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PromptTemplate("{stop}"), "cannot be named 'stop'"),
        (lambda: PromptTemplate("{a}", template_format="jinja2"), "'f-string' only"),
        (lambda: PromptTemplate("{a}", input_variables=["b"], validate_template=True), r"\['a'\], not \['b'\]"),
        (lambda: PromptTemplate("{a} {b}").invoke("x"), r"\['a', 'b'\], and got str"),
        (lambda: PromptTemplate("{a}").invoke({"b": 1}), "lacks a value for 'a'"),
        (lambda: PromptTemplate("{a}").format(), "lacks a value for 'a'"),
    ],
    ids=["stop", "jinja2", "validate", "one value for two", "missing", "nothing"],
)  # fmt: skip
def test_bad_use_is_a_clear_error(make: Any, error: str) -> None:
    """Each error names the variable or the option."""
    with pytest.raises(ConfigError, match=error):
        make()


def test_values_for_other_names_are_ignored() -> None:
    """As in LangChain: a dict may serve several prompts."""
    prompt = PromptTemplate("{a}", input_variables=["ignored"])
    assert prompt.invoke({"a": 1, "b": 2}).text == "1"
    assert repr(prompt) == "PromptTemplate(input_variables=['a'], template='{a}')"
