"""`with_structured_output` sends what LangChain sends, and returns what LangChain returns.

The comparisons leave out these intended differences. JSON that is cut off is an error, where LangChain returns what
there is of it; so are arguments of a tool call that are cut off, where LangChain returns None. A parsing error at the
end of a stream is raised. With `include_raw`, also an answer that a Pydantic class refuses is returned under
`parsing_error`, and a stream yields each raw chunk, not their sum. The errors are recorder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from recorder.models.structured_output import FUNCTION_CALLING, JSON_MODE, JSON_SCHEMA
from recorder.testing import LoopbackProvider
from tests.models.test_like_langchain_anthropic import theirs as their_claude
from tests.models.test_structured_output import APIS, PIECES, SCHEMA, Api, Joke, JokeDict, name_in

langchain: Any = pytest.importorskip("langchain_openai")

#: TypedDicts are described with Pydantic's own words in ours, so only their values are compared.
SCHEMAS: dict[str, Any] = {"class": Joke, "dict": JokeDict, "schema": SCHEMA}
CELLS = [
    (api, method, strict)
    for api in APIS
    for method in (FUNCTION_CALLING, JSON_SCHEMA, JSON_MODE)
    for strict in (None, True)
    if not (method == JSON_MODE and (strict or api.name == "anthropic"))
    if not (api.name == "anthropic" and strict)
]


@contextmanager
def their_model(api: Api, provider: LoopbackProvider) -> Iterator[Any]:
    """Yield LangChain's model of this API, and close its connections."""
    if api.name == "anthropic":
        model = their_claude(provider)
        yield model
        model._client.close()
        return
    with openai.DefaultHttpxClient(verify=False) as http:
        yield langchain.ChatOpenAI(
            model="gpt-4o", base_url=provider.base_url, api_key="any", max_retries=0, http_client=http,
            use_responses_api=api.name == "responses",
        )  # fmt: skip


def sent(provider: LoopbackProvider) -> list[dict[str, Any]]:
    """Return what the requests say about the form of the answer."""
    names = ("response_format", "text", "tools", "tool_choice", "parallel_tool_calls", "output_config")
    return [
        {name: request["body"][name] for name in names if name in request["body"]}
        for request in provider.requests
    ]


@pytest.mark.matrix
@pytest.mark.parametrize(("api", "method", "strict"), CELLS, ids=str)
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_requests_and_values_equal_langchains(
    api: Api, method: str, strict: bool | None, schema: Any
) -> None:
    """Every method with every API and every form of a schema."""
    tool = name_in(schema) if method == FUNCTION_CALLING else None
    options = {"method": method, **({"strict": strict} if strict is not None else {})}
    with LoopbackProvider(api.answer(PIECES, tool=tool, stream=False)) as provider:
        with their_model(api, provider) as theirs:
            expected = theirs.with_structured_output(schema, **options).invoke("Tell")
        found = api.model(provider).with_structured_output(schema, **options).invoke("Tell")
    assert found == expected
    their_body, our_body = sent(provider)
    assert our_body == their_body


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # of LangChain's
@pytest.mark.parametrize("method", [FUNCTION_CALLING, JSON_SCHEMA, JSON_MODE])
@pytest.mark.parametrize("schema", [Joke, SCHEMA], ids=["class", "schema"])
def test_the_values_of_a_stream_equal_langchains(method: str, schema: Any) -> None:
    """They grow in the same steps."""
    tool = name_in(schema) if method == FUNCTION_CALLING else None
    with LoopbackProvider(APIS[0].answer(PIECES, tool=tool, stream=True)) as provider:
        with their_model(APIS[0], provider) as theirs:
            expected = list(theirs.with_structured_output(schema, method=method).stream("Hi"))
        found = list(APIS[0].model(provider).with_structured_output(schema, method=method).stream("Hi"))
    assert found == expected


def test_the_keys_of_a_raw_answer_equal_langchains() -> None:
    """They are `raw`, `parsed` and `parsing_error`."""
    with LoopbackProvider(APIS[0].answer(["Why?"], tool=None, stream=False)) as provider:
        with their_model(APIS[0], provider) as theirs:
            expected = theirs.with_structured_output(SCHEMA, include_raw=True).invoke("Tell")
        found = APIS[0].model(provider).with_structured_output(SCHEMA, include_raw=True).invoke("Tell")
    assert found.keys() == expected.keys() == {"raw", "parsed", "parsing_error"}
    assert found["parsed"] is expected["parsed"] is None
    errors = (found["parsing_error"], expected["parsing_error"])
    assert [type(error).__name__ for error in errors] == ["OutputParserException"] * 2
