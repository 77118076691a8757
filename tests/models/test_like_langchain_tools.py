"""Tools are described as LangChain describes them, and LangChain's own tools are tools for our models.

The comparisons leave out these intended differences. `*args` and `**kwargs` of a function are no parameters. A key of a
TypedDict that may be None is described so. A class that refers to itself keeps its definition.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest

from recorder.models.tools import openai_function, openai_tool
from recorder.testing import LoopbackProvider
from tests import anthropics
from tests.models.test_tools import DICTS, WEATHER, City, Weather

tools: Any = pytest.importorskip("langchain_core.tools")
convert: Any = pytest.importorskip("langchain_core.utils.function_calling").convert_to_openai_tool


def langchain_tools() -> dict[str, Any]:
    """Return one tool of each of LangChain's classes."""

    def of_city(city: str, user: Annotated[str, tools.InjectedToolArg], day: int | None = None) -> str:
        """The weather of a city."""
        return f"{city} {user} {day}"

    def of_text(text: str) -> str:
        return text

    schema = {"type": "object", "properties": {"a": {"type": "string", "title": "A"}}, "required": ["a"]}
    return {
        "decorated": tools.tool(of_city),
        "structured": tools.StructuredTool.from_function(of_city, name="city", args_schema=City),
        "for a dict": tools.StructuredTool(
            name="a", description="b", args_schema=schema, func=of_text, extras={"defer_loading": True}
        ),
    }


@pytest.mark.parametrize("strict", [None, True, False])
def test_tools_are_described_as_langchain_describes_them(strict: bool | None) -> None:
    """Functions, classes, and tools of LangChain give equal dicts."""

    def plain(city: str, unit: Literal["C", "F"] = "C", days: Annotated[int, "How many"] = 3) -> str:
        """The weather of a city.

        It is never wrong.

        Args:
            city: The name,
                in any language.
        """
        return f"{city} {unit} {days}"

    for tool in (plain, City, Weather, WEATHER, DICTS[3][0], DICTS[4][0], *langchain_tools().values()):
        found = openai_tool(tool, strict)
        found.pop("defer_loading", None)
        assert found == convert(tool, strict=strict), tool


def test_a_tool_of_langchain_for_one_text_has_one_argument() -> None:
    """LangChain's `Tool` accepts it under this name."""
    search = tools.Tool(name="search", description="Search.", func=str)
    parameters = {"type": "object", "properties": {"__arg1": {"type": "string"}}, "required": ["__arg1"]}
    assert openai_function(search) == {"name": "search", "description": "Search.", "parameters": parameters}


def test_settings_for_a_provider_are_sent_to_it() -> None:
    """LangChain's tools have them in `extras`; a custom tool has its format in its metadata."""
    deferred = langchain_tools()["for a dict"]
    assert openai_tool(deferred)["defer_loading"] is True
    own = tools.Tool(
        name="x",
        description="y",
        func=str,
        extras={"provider_tool_definition": {"type": "bash_20250124", "name": "bash"}},
    )
    custom = tools.Tool(
        name="x", description="y", func=str, metadata={"type": "custom_tool", "format": {"type": "text"}}
    )
    assert openai_tool(custom) == {
        "type": "custom",
        "name": "x",
        "description": "y",
        "format": {"type": "text"},
    }
    with LoopbackProvider("Hello") as provider:
        anthropics.chat(provider).bind_tools([deferred, own]).invoke("Hi")
    first, second = provider.requests[0]["body"]["tools"]
    assert (first["name"], first["defer_loading"]) == ("a", True)
    assert second == {"type": "bash_20250124", "name": "bash"}
