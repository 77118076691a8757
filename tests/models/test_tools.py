"""`bind_tools` takes functions, classes, TypedDicts, LangChain's tools and dicts, and sends each API its own form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
import typing_extensions
from pydantic import BaseModel, Field

from recorder.errors import ConfigError
from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.models.tools import openai_function, openai_tool
from recorder.testing import LoopbackProvider
from tests import anthropics, chatting


class City(BaseModel):
    """A city."""

    name: str = Field(description="Its name")
    title: str = "Mayor"


class Weather(BaseModel):
    """The weather of a city."""

    city: City
    others: list[City] = []
    unit: Literal["C", "F"] = "C"
    day: int | None = None


class Node(BaseModel):
    """A tree."""

    value: int
    child: Node | None = None


class Place(TypedDict):
    """Where it is."""

    country: str


class Joke(TypedDict):
    """A joke.

    Args:
        setup: The first line.
    """

    setup: str
    punchline: Annotated[str, ..., "The last line"]
    rating: Annotated[int, 5, "How funny"]
    tag: Annotated[str, "A word"]
    place: NotRequired[list[Place]]


class Loose(typing_extensions.TypedDict, total=False):
    name: typing_extensions.Required[str]
    place: Place | None


class Loop(TypedDict):
    child: list[Loop]


class Opaque:
    """A class that JSON does not have."""


def weather(
    city: str, unit: Literal["C", "F"] = "C", days: Annotated[int, "How many"] = 3, *more: str
) -> str:
    """The weather of a city.

    It is never wrong.

    Args:
        city: The name,
            in any language.
        unit (str): Celsius or Fahrenheit.

    Returns:
        A sentence.
    """
    return f"{city} {unit} {days} {more}"


def bare(anything, callbacks=None, **options):  # type: ignore[no-untyped-def]
    return anything, callbacks, options


def opaque(value: Opaque) -> None:
    """Do something."""


def unknown(value: NoSuchType) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Do something."""


class Shop:
    """Has a method."""

    def order(self, item: str, schema: dict[str, int] = {}) -> None:  # noqa: B006
        """Order an item."""


WEATHER = {
    "name": "weather",
    "description": "The weather of a city. It is never wrong.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "The name, in any language."},
            "unit": {
                "type": "string",
                "enum": ["C", "F"],
                "default": "C",
                "description": "Celsius or Fahrenheit.",
            },
            "days": {"type": "integer", "default": 3, "description": "How many"},
        },
        "required": ["city"],
    },
}


def test_a_function_is_described_by_its_docstring_and_its_type_hints() -> None:
    """Parameters without a default are required; `*more` is not there."""
    assert openai_tool(weather) == {"type": "function", "function": WEATHER}


def test_a_function_without_hints_and_docstring_is_a_tool() -> None:
    """A parameter may have any value; what LangChain passes itself, and `**options`, are not there."""
    parameters = {"type": "object", "properties": {"anything": {}}, "required": ["anything"]}
    assert openai_function(bare) == {"name": "bare", "description": "", "parameters": parameters}


@pytest.mark.parametrize("method", [Shop().order, Shop.order], ids=["bound", "not bound"])
def test_a_method_is_a_tool_without_self(method: Callable[..., Any]) -> None:
    """A parameter may have a name that Pydantic's classes have, too."""
    found = openai_function(method)
    assert found["name"] == "order"
    assert found["parameters"]["properties"] == {
        "item": {"type": "string"},
        "schema": {"type": "object", "additionalProperties": {"type": "integer"}, "default": {}},
    }


def test_a_pydantic_class_has_no_references_and_no_titles() -> None:
    """The definition of a nested class stands where it is used, and a field with the name title stays."""
    city = {
        "type": "object",
        "description": "A city.",
        "properties": {
            "name": {"type": "string", "description": "Its name"},
            "title": {"type": "string", "default": "Mayor"},
        },
        "required": ["name"],
    }
    found = openai_function(Weather)
    assert (found["name"], found["description"]) == ("Weather", "The weather of a city.")
    assert found["parameters"]["properties"] == {
        "city": city,
        "others": {"type": "array", "items": city, "default": []},
        "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        "day": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    }


def test_a_class_that_refers_to_itself_keeps_its_definition() -> None:
    """It cannot be written without a reference."""
    parameters = openai_function(Node)["parameters"]
    assert parameters["properties"]["child"]["anyOf"][0] == {"$ref": "#/$defs/Node"}
    assert parameters["$defs"].keys() == {"Node"}


def test_a_typed_dict_is_described_as_in_langchain() -> None:
    """The docstring and the third argument of Annotated describe keys; its second argument is the default."""
    found = openai_function(Joke)
    assert (found["name"], found["description"]) == ("Joke", "A joke.")
    place = {
        "type": "object",
        "description": "Where it is.",
        "properties": {"country": {"type": "string"}},
        "required": ["country"],
    }
    assert found["parameters"] == {
        "type": "object",
        "properties": {
            "setup": {"type": "string", "description": "The first line."},
            "punchline": {"type": "string", "description": "The last line"},
            "rating": {"type": "integer", "default": 5, "description": "How funny"},
            "tag": {"type": "string", "description": "A word"},
            "place": {"type": "array", "items": place},
        },
        "required": ["setup", "punchline", "tag"],
    }


def test_keys_of_a_typed_dict_may_be_missing() -> None:
    """`total=False`, `Required` and unions with None have their meaning; there is no docstring."""
    found = openai_function(Loose)
    assert found["description"] == ""
    assert found["parameters"]["required"] == ["name"]
    assert found["parameters"]["properties"]["place"]["anyOf"][1] == {"type": "null"}


DICTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "web_search"}, {"type": "web_search"}),
    ({"type": "function", "function": WEATHER}, {"type": "function", "function": WEATHER}),
    (WEATHER, {"type": "function", "function": WEATHER}),
    (
        {"name": "a", "description": "b", "input_schema": {"type": "object"}, "cache_control": {}},
        {"type": "function", "function": {"name": "a", "description": "b", "parameters": {"type": "object"}}},
    ),
    (
        {"title": "a", "description": "b", "type": "object", "properties": {"c": {}}},
        {
            "type": "function",
            "function": {
                "name": "a",
                "description": "b",
                "parameters": {"type": "object", "properties": {"c": {}}},
            },
        },
    ),
]


@pytest.mark.parametrize(("tool", "expected"), DICTS, ids=["own", "openai", "inner", "anthropic", "schema"])
def test_a_dict_may_have_each_form_of_a_tool(tool: dict[str, Any], expected: dict[str, Any]) -> None:
    """OpenAI's own tools and functions are sent as they are."""
    before = dict(tool)
    assert openai_tool(tool) == expected
    assert tool == before


REFUSED: dict[str, tuple[Any, str]] = {
    "a number": (7, "7 is not a tool; pass a function"),
    "a class": (Opaque, "is not a tool; pass a function"),
    "a lambda": (lambda city: city, "it has no name"),
    "a dict": ({"city": "Bern"}, "'city': 'Bern'} is not a tool"),
    "only a name": ({"name": "weather"}, "is not a tool"),
    "a type": (opaque, "opaque has no JSON schema"),
    "no type": (unknown, "unknown has no JSON schema: name 'NoSuchType' is not defined"),
    "no signature": (max, "max has no JSON schema: no signature found"),
    "a circle": (Loop, "Loop refers to itself; pass a Pydantic class"),
}


@pytest.mark.parametrize(("tool", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("model", [ChatOpenAI(api_key="any"), ChatAnthropic(api_key="any")], ids=["O", "A"])
def test_what_cannot_be_a_tool_is_refused(model: Any, tool: Any, message: str) -> None:
    """The error names the thing and says what to pass."""
    with pytest.raises(ConfigError, match=message):
        model.bind_tools([tool])


def test_strict_tools_require_all_parameters() -> None:
    """At all depths every property is required, and others are refused."""
    found = openai_function(Weather, strict=True)
    city = found["parameters"]["properties"]["city"]
    assert found["strict"] is True
    assert found["parameters"]["required"] == ["city", "others", "unit", "day"]
    for each in (found["parameters"], city, found["parameters"]["properties"]["others"]["items"]):
        assert each["additionalProperties"] is False
    assert city["required"] == ["name", "title"]


def test_a_tool_has_one_value_of_strict() -> None:
    """A dict that says otherwise is refused, not changed."""
    with pytest.raises(ConfigError, match="The tool weather has strict=False; leave out strict=True"):
        openai_function({**WEATHER, "strict": False}, strict=True)


# -- each API --------------------------------------------------------------------------------------------------


def test_chat_completions_get_the_function_and_the_choice() -> None:
    """A tool is chosen by its name, whatever it was made of."""
    with LoopbackProvider("Hello") as provider:
        model = chatting.chat(provider).bind_tools(
            [weather, Joke], tool_choice="Joke", strict=None, parallel_tool_calls=False
        )
        model.invoke("Hi")
    body = provider.requests[0]["body"]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather", "Joke"]
    assert body["tools"][0] == {"type": "function", "function": WEATHER}
    assert body["tool_choice"] == {"type": "function", "function": {"name": "Joke"}}
    assert body["parallel_tool_calls"] is False


def test_responses_get_the_flat_function_and_the_choice() -> None:
    """OpenAI's own tools stand beside functions."""
    with LoopbackProvider("Hello") as provider:
        model = chatting.chat(provider, use_responses_api=True)
        model.bind_tools([weather, {"type": "web_search"}], tool_choice="weather").invoke("Hi")
    body = provider.requests[0]["body"]
    assert body["tools"] == [{"type": "function", **WEATHER}, {"type": "web_search"}]
    assert body["tool_choice"] == {"type": "function", "name": "weather"}


def test_anthropic_gets_the_input_schema() -> None:
    """`strict` is sent, too."""
    with LoopbackProvider("Hello") as provider:
        anthropics.chat(provider).bind_tools([weather, City], tool_choice="City").invoke("Hi")
        anthropics.chat(provider).bind_tools([City], strict=True).invoke("Hi")
    body, strict = (request["body"] for request in provider.requests)
    assert body["tools"][0] == {
        "name": "weather",
        "description": WEATHER["description"],
        "input_schema": WEATHER["parameters"],
    }
    assert body["tool_choice"] == {"type": "tool", "name": "City"}
    assert strict["tools"][0]["strict"] is True
    assert strict["tools"][0]["input_schema"]["additionalProperties"] is False


@pytest.mark.parametrize("is_responses", [False, True], ids=["chat", "responses"])
def test_an_answer_without_a_call_may_have_a_schema(is_responses: bool) -> None:
    """With chat completions, `response_format` makes the tools strict."""
    with LoopbackProvider("Hello") as provider:
        model = chatting.chat(provider, use_responses_api=is_responses)
        model.bind_tools([weather], response_format=City).invoke("Hi")
    body = provider.requests[0]["body"]
    found = body["text"]["format"] if is_responses else body["response_format"]["json_schema"]
    assert (found["name"], found["strict"]) == ("City", True)
    assert ("strict" in (body["tools"][0] if is_responses else body["tools"][0]["function"])) != is_responses
