"""`with_structured_output` returns values of a schema, as they grow, and says why there is none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel, ValidationError

from recorder.errors import ConfigError, ModelRefusalError, OutputParserException
from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.models.structured_output import FUNCTION_CALLING, JSON_MODE, JSON_SCHEMA, METHODS
from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_messages_body,
    anthropic_messages_frames,
    openai_chat_body,
    openai_chat_frames,
    openai_responses_body,
    openai_responses_frames,
)
from tests import anthropics, chatting
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, history_at, name_of, recorded
from tests.oracle import new_url

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


class Joke(BaseModel):
    """A joke."""

    setup: str
    rating: int


class JokeDict(TypedDict):
    """A joke."""

    setup: str
    rating: int


SCHEMA = {
    "title": "Joke",
    "description": "A joke.",
    "type": "object",
    "properties": {"setup": {"type": "string"}, "rating": {"type": "integer"}},
    "required": ["setup", "rating"],
}
VALUE = {"setup": "Why did", "rating": 3}
PIECES = ['{"setup": "Why', ' did", "rating"', ": 3}"]
SCHEMAS: dict[str, Any] = {"class": Joke, "dict": JokeDict, "schema": SCHEMA}
each_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def name_in(schema: Any) -> str:
    """Return the name of the tool for a schema."""
    return "JokeDict" if schema is JokeDict else "Joke"


def value_in(schema: Any) -> Any:
    """Return the expected value."""
    return Joke(**VALUE) if schema is Joke else VALUE  # type: ignore[arg-type]


class Api:
    """One of the three APIs: its model, and its answers with these pieces in the text or in a tool call."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def model(self, provider: LoopbackProvider, **options: Any) -> Any:
        """Return the model of this provider."""
        if self.name == "anthropic":
            return anthropics.chat(provider, **options)
        return chatting.chat(provider, use_responses_api=self.name == "responses", **options)

    def answer(self, pieces: list[str], *, tool: str | None, stream: bool, **more: Any) -> Answer:
        """Return the answer of the provider."""
        make = {
            "chat": (openai_chat_body, openai_chat_frames),
            "responses": (openai_responses_body, openai_responses_frames),
            "anthropic": (anthropic_messages_body, anthropic_messages_frames),
        }[self.name][stream]
        if tool:
            key = "input" if self.name == "anthropic" else "arguments"
            more["tool_calls"] = [{"id": "call_1", "name": tool, key: pieces if stream else "".join(pieces)}]
            if self.name == "anthropic" and not stream:
                more["tool_calls"][0]["input"] = json.loads("".join(pieces))
            pieces = []
        made: Any = make(pieces, **more)  # type: ignore[operator]
        return Answer(frames=made) if stream else Answer(body=made)


APIS = [Api("chat"), Api("responses"), Api("anthropic")]
each_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
CELLS = [
    (api, method)
    for api in APIS
    for method in METHODS
    if not (api.name == "anthropic" and method == JSON_MODE)
]
each_method = pytest.mark.parametrize(
    ("api", "method"), CELLS, ids=[f"{api.name}-{method}" for api, method in CELLS]
)


@pytest.mark.matrix
@both
@each_method
@each_schema
def test_the_answer_is_a_value_of_the_schema(style: CallStyle, api: Api, method: str, schema: Any) -> None:
    """A Pydantic class gives an object, other schemas give a dict, with every API and method."""
    tool = name_in(schema) if method == FUNCTION_CALLING else None
    with LoopbackProvider(api.answer(PIECES, tool=tool, stream=False)) as provider:
        model = api.model(provider).with_structured_output(schema, method=method)
        assert style.invoke(model, "Tell") == value_in(schema)
        assert style.batch(model, ["Tell", "Tell"]) == [value_in(schema)] * 2


@pytest.mark.matrix
@both
@each_method
@each_schema
def test_a_stream_yields_the_value_as_it_grows(style: CallStyle, api: Api, method: str, schema: Any) -> None:
    """Each item has everything that arrived before; a Pydantic class gives only what it accepts."""
    tool = name_in(schema) if method == FUNCTION_CALLING else None
    with LoopbackProvider(api.answer(PIECES, tool=tool, stream=True)) as provider:
        model = api.model(provider).with_structured_output(schema, method=method)
        found = style.stream(model, "Tell")
    assert found[-1] == value_in(schema)
    if schema is Joke:
        assert len(found) == 1
    else:
        assert {"setup": "Why did"} in found


@both
@each_api
def test_the_raw_answer_comes_with_the_value(style: CallStyle, api: Api) -> None:
    """`include_raw` gives the message, the value, and no error; in a stream, each chunk and then the two."""
    for stream in (False, True):
        with LoopbackProvider(api.answer(PIECES, tool=None, stream=stream)) as provider:
            model = api.model(provider).with_structured_output(Joke, method=JSON_SCHEMA, include_raw=True)
            if stream:
                items: list[Any] = style.stream(model, "Tell")
                *chunks, parsed, error = items
                assert "".join(chunk["raw"].text for chunk in chunks) == "".join(PIECES)
                assert (parsed, error) == ({"parsed": Joke(**VALUE)}, {"parsing_error": None})  # type: ignore[arg-type]
            else:
                found = style.invoke(model, "Tell")
                assert found.pop("raw").text == "".join(PIECES)
                assert found == {"parsed": Joke(**VALUE), "parsing_error": None}  # type: ignore[arg-type]


#: Method, schema, the text or the arguments, and the error.
BROKEN: dict[str, tuple[str, Any, str, type[Exception], str]] = {
    "no JSON": (JSON_SCHEMA, SCHEMA, "Why?", OutputParserException, "The answer is not JSON: 'Why[?]'"),
    "no JSON for a class": (JSON_SCHEMA, Joke, "Why?", OutputParserException, "The answer is not JSON"),
    "cut JSON": (JSON_MODE, SCHEMA, '{"setup": "W', OutputParserException, "The answer is not JSON"),
    "another object": (JSON_SCHEMA, Joke, '{"setup": "W"}', ValidationError, "rating"),
    "another object in JSON mode": (
        JSON_MODE,
        Joke,
        "{}",
        OutputParserException,
        "The answer is no Joke: '{}'",
    ),
    "cut arguments": (
        FUNCTION_CALLING,
        Joke,
        '{"setup": "W',
        OutputParserException,
        "The arguments of the call of Joke are not a JSON object",
    ),
    "other arguments": (FUNCTION_CALLING, Joke, '{"setup": "W"}', ValidationError, "rating"),
}


@both
@pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
@pytest.mark.parametrize("cell", BROKEN.values(), ids=BROKEN)
def test_an_answer_without_the_form_raises_or_returns_its_error(
    style: CallStyle, stream: bool, cell: tuple[str, Any, str, type[Exception], str]
) -> None:
    """The run itself is complete; the parsing error is raised, or stands beside the raw answer."""
    method, schema, text, kind, message = cell
    tool = "Joke" if method == FUNCTION_CALLING else None
    call: Any = style.stream if stream else style.invoke
    with LoopbackProvider(APIS[0].answer([text], tool=tool, stream=stream)) as provider:
        model = chatting.chat(provider)
        with pytest.raises(kind, match=message):
            call(model.with_structured_output(schema, method=method), "Tell")
        found = call(model.with_structured_output(schema, method=method, include_raw=True), "Tell")
    if stream:
        found = {key: value for item in found for key, value in item.items()}
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], kind)
    assert isinstance(found["parsing_error"], ValueError)


def test_the_error_of_a_cut_answer_names_the_limit() -> None:
    """It says what to change, and has the text."""
    answer = APIS[0].answer(['{"setup": "W'], tool=None, stream=True, finish_reason="length")
    with LoopbackProvider(answer) as provider:
        model = chatting.chat(provider).with_structured_output(SCHEMA)
        with pytest.raises(OutputParserException, match="cut off at the limit of tokens") as caught:
            list(model.stream("Tell"))
    assert caught.value.llm_output == '{"setup": "W'


@both
def test_an_answer_without_a_tool_call_is_none(style: CallStyle) -> None:
    """LangChain returns None, too; a stream yields nothing."""
    with LoopbackProvider("I would rather not.") as provider:
        model = chatting.chat(provider).with_structured_output(Joke, method=FUNCTION_CALLING)
        assert style.invoke(model, "Tell") is None
        assert style.stream(model, "Tell") == []


def test_a_call_of_another_tool_is_no_value() -> None:
    """The model may call `tools` in place of answering."""
    weather = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    with LoopbackProvider(APIS[0].answer(["{}"], tool="weather", stream=False)) as provider:
        model = chatting.chat(provider).with_structured_output(Joke, tools=[weather])
        assert model.invoke("Tell") is None
    assert provider.requests[0]["body"]["tools"] == [weather]


def refusal_body() -> bytes:
    """Return an answer of OpenAI with a refusal."""
    return openai_chat_body([""]).replace(b'"refusal": null', b'"refusal": "I will not."')


@pytest.mark.parametrize("method", METHODS)
def test_a_refusal_is_an_error_of_its_own(method: str) -> None:
    """It has the model's message; it is no parsing error of a text that happens to be empty."""
    with LoopbackProvider(Answer(body=refusal_body())) as provider:
        model = chatting.chat(provider).with_structured_output(Joke, method=method)
        with pytest.raises(ModelRefusalError, match="I will not") as caught:
            model.invoke("Tell")
    assert caught.value.raw_message.additional_kwargs["refusal"] == "I will not."  # type: ignore[attr-defined]


def test_a_filter_is_a_refusal() -> None:
    """A content filter of OpenAI, and the stop reason `refusal` of Anthropic."""
    filtered = openai_chat_frames(["Wh"], finish_reason="content_filter")
    refused = anthropic_messages_frames(["Wh"], stop_reason="refusal")
    with LoopbackProvider(Answer(frames=filtered)) as provider:
        model = chatting.chat(provider).with_structured_output(Joke)
        with pytest.raises(ModelRefusalError, match="content_filter"):
            list(model.stream("Tell"))
    with LoopbackProvider(Answer(frames=refused)) as provider:
        claude = anthropics.chat(provider).with_structured_output(Joke, method=JSON_SCHEMA)
        with pytest.raises(ModelRefusalError, match="refusal"):
            list(claude.stream("Tell"))


@pytest.mark.parametrize("options", [{"thinking": {"type": "adaptive"}}, {"model": "claude-opus-5-5"}])
def test_a_model_that_cannot_be_forced_must_still_answer(options: dict[str, Any]) -> None:
    """The request chooses no tool, and an answer without a call is a parsing error with the next step."""
    with LoopbackProvider(APIS[2].answer(["No."], tool=None, stream=False)) as provider:
        model = anthropics.chat(provider, **options).with_structured_output(Joke)
        with pytest.raises(OutputParserException, match=r"no call of Joke, .* pass method='json_schema'"):
            model.invoke("Tell")
    assert "tool_choice" not in provider.requests[0]["body"]


def test_json_may_stand_in_a_block_of_code() -> None:
    """Models write it so, although nobody wants it."""
    for text in ("```json\n{}\n```", "Here it is:\n```\n{}\n```\nBye", " {} \n", '{"a": "```"}'):
        with LoopbackProvider(text) as provider:
            found = chatting.chat(provider).with_structured_output(method=JSON_MODE).invoke("Tell")
        assert found == ({"a": "```"} if '"a"' in text else {})


INVALID: dict[str, tuple[Any, dict[str, Any], str]] = {
    "method": (Joke, {"method": "xml"}, "method is 'xml'; choose one of 'function_calling'"),
    "no schema": (None, {}, "method 'json_schema' needs a schema"),
    "strict": (Joke, {"method": "json_mode", "strict": True}, "strict has no meaning"),
    "two values": (
        {"name": "a", "schema": {}, "strict": True},
        {"strict": False},
        "The schema has strict=True, but strict=False was passed",
    ),
    "no schema at all": (7, {}, "7 is not a tool"),
}


@pytest.mark.parametrize(("schema", "options", "message"), INVALID.values(), ids=INVALID)
def test_what_has_no_schema_is_refused(schema: Any, options: dict[str, Any], message: str) -> None:
    """The error says what to pass."""
    with pytest.raises(ConfigError, match=message):
        ChatOpenAI(api_key="any").with_structured_output(schema, **options)


def test_anthropic_has_no_json_mode() -> None:
    """The error names the methods."""
    with pytest.raises(ConfigError, match="choose one of 'function_calling', 'json_schema'"):
        ChatAnthropic(api_key="any").with_structured_output(Joke, method=JSON_MODE)


def test_anthropics_tool_may_be_strict_and_its_format_always_is() -> None:
    """`strict` is a setting of a tool; the API has none for the format of an answer."""
    with LoopbackProvider("{}") as provider:
        for method in (FUNCTION_CALLING, JSON_SCHEMA):
            model = anthropics.chat(provider)
            model.with_structured_output(Joke, method=method, strict=True, include_raw=True).invoke("Tell")
    tool, answer = (request["body"] for request in provider.requests)
    assert tool["tools"][0]["strict"] is True
    assert "strict" not in answer


def test_an_effort_stays_beside_the_format() -> None:
    """`output_config` of the model is not lost."""
    with LoopbackProvider(APIS[2].answer(PIECES, tool=None, stream=False)) as provider:
        model = anthropics.chat(provider, effort="low").with_structured_output(Joke, method=JSON_SCHEMA)
        assert model.invoke("Tell") == Joke(**VALUE)  # type: ignore[arg-type]
    config = provider.requests[0]["body"]["output_config"]
    assert (config["effort"], config["format"]["type"]) == ("low", "json_schema")


def test_a_class_may_be_sent_without_strict_mode() -> None:
    """OpenAI's strict mode does not accept every schema."""
    with LoopbackProvider("{}") as provider:
        chatting.chat(provider).with_structured_output(Joke, strict=False, include_raw=True).invoke("Tell")
    assert provider.requests[0]["body"]["response_format"]["json_schema"]["strict"] is False


@both
def test_a_value_that_cannot_be_parsed_is_still_recorded(style: CallStyle, tmp_path: Path) -> None:
    """The provider's answer is complete, and stored as it came; the callbacks of the call's config are used."""
    url = new_url(tmp_path)
    with LoopbackProvider("Why?") as provider, history_at(url) as history:
        model = chatting.chat(provider).with_structured_output(Joke)
        with pytest.raises(OutputParserException):
            style.stream(model.with_config(tags=["joke"]), "Tell", {"callbacks": [history]})
    found = recorded(url)
    assert (found.run["status"], found.text) == ("complete", "Why?")
    assert found.run["tags"] == '["joke"]'


@both
def test_leaving_the_loop_cancels_the_run(style: CallStyle, tmp_path: Path) -> None:
    """The run ends when the stream of values is closed."""

    async def first(model: Any) -> Any:
        values = model.astream("Tell")
        found = await anext(values)
        await values.aclose()
        return found

    url, answer = new_url(tmp_path), APIS[0].answer(PIECES, tool=None, stream=True)
    with LoopbackProvider(answer) as provider, history_at(url) as history:
        model = chatting.chat(provider, callbacks=[history]).with_structured_output(SCHEMA)
        if style is PLAIN:
            values = model.stream("Tell")
            assert next(values) == {"setup": "Why"}
            values.close()
        else:
            assert asyncio.run(first(model)) == {"setup": "Why"}
    assert recorded(url).run["status"] == "cancelled"
