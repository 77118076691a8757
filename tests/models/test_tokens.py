"""Tokens are counted by tiktoken for OpenAI's models, and by the API for Anthropic's."""

from __future__ import annotations

import sys
from typing import Any

import openai
import pytest

from recorder.errors import ConfigError, MissingExtra
from recorder.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.models import AzureChatOpenAI, ChatOpenAI, OpenAI
from recorder.testing import Answer, LoopbackProvider
from tests import anthropics
from tests.chatting import Log

tiktoken: Any = pytest.importorskip("tiktoken")

#: Without arguments, because LangChain writes a space after the colon of JSON.
CALL = {"name": "weather", "args": {}, "id": "call_1"}
MESSAGES = [
    SystemMessage("Be brief."),
    HumanMessage("Is it warm?", name="anna"),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("20 °C", tool_call_id="call_1"),
    HumanMessage([{"type": "text", "text": "And here?"}]),
]


@pytest.fixture(autouse=True)
def encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give tiktoken a vocabulary of single bytes, because the genuine ones are downloaded."""
    import tiktoken.registry

    ranks = {bytes([number]): number for number in range(256)}
    own = {
        name: tiktoken.Encoding(name, pat_str=r".|\n", mergeable_ranks=ranks, special_tokens={"<|end|>": 256})
        for name in ("o200k_base", "cl100k_base")
    }
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", own)


@pytest.mark.parametrize(
    "model",
    [ChatOpenAI(api_key="any"), AzureChatOpenAI(model="gpt-4o", api_key="any"), OpenAI(api_key="any")],
    ids=["chat", "azure", "completions"],
)
def test_texts_are_counted(model: Any) -> None:
    """Special tokens in a text are text."""
    assert model.get_token_ids("ab") == [97, 98]
    assert model.get_num_tokens("Zürich") == 7
    assert model.get_num_tokens("<|end|>") == 7


def test_messages_are_counted_as_in_openais_cookbook() -> None:
    """3 for each message, its role and its texts, 1 for a name, 3 for the reply."""
    model = ChatOpenAI(api_key="any")
    assert model.get_num_tokens_from_messages([HumanMessage("Hello")]) == 3 + len("user" + "Hello") + 3
    assert model.get_num_tokens_from_messages("Hello") == 3 + len("user" + "Hello") + 3


def test_numbers_equal_langchains() -> None:
    """Names, tool calls, their results and blocks count alike."""
    langchain = pytest.importorskip("langchain_openai")
    with openai.DefaultHttpxClient(verify=False) as http:
        theirs = langchain.ChatOpenAI(model="gpt-4o", api_key="any", http_client=http)
        ours = ChatOpenAI("gpt-4o", api_key="any")
        convert = pytest.importorskip("langchain_core.messages").convert_to_messages
        for count in range(1, 1 + len(MESSAGES)):
            given = convert([as_dict(message) for message in MESSAGES[:count]])
            assert ours.get_num_tokens_from_messages(MESSAGES[:count]) == theirs.get_num_tokens_from_messages(
                given
            )
        assert ours.get_num_tokens("Grüezi") == theirs.get_num_tokens("Grüezi")


def as_dict(message: Any) -> dict[str, Any]:
    """Return a message in the form that LangChain reads."""
    fields = {"role": message.role, "content": message.content}
    if message.name:
        fields["name"] = message.name
    if isinstance(message, AIMessage):
        fields["tool_calls"] = [{**call, "type": "tool_call"} for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        fields["tool_call_id"] = message.tool_call_id
    return fields


def test_a_small_image_has_a_fixed_number_and_others_have_none() -> None:
    """The tokens of a large one depend on its size; a guess would be worse than an error."""
    model = ChatOpenAI(api_key="any")

    def image(**more: str) -> list[HumanMessage]:
        return [HumanMessage([{"type": "image_url", "image_url": {"url": "https://x/y.png", **more}}])]

    assert model.get_num_tokens_from_messages(image(detail="low")) == 3 + len("user") + 85 + 3
    with pytest.raises(ConfigError, match="a block of type 'image_url' cannot be counted"):
        model.get_num_tokens_from_messages(image())


def test_an_unknown_model_needs_a_known_one() -> None:
    """Another provider's model has another vocabulary; `tiktoken_model_name` chooses one."""
    with pytest.raises(ConfigError, match="how 'llama-4' counts tokens; pass tiktoken_model_name="):
        ChatOpenAI("llama-4", api_key="any").get_num_tokens("Hello")
    assert ChatOpenAI("llama-4", api_key="any", tiktoken_model_name="gpt-4o").get_num_tokens("Hello") == 5
    assert ChatOpenAI("gpt-6-nano", api_key="any").get_num_tokens("Hello") == 5


def test_without_tiktoken_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtra, match="Counting tokens needs tiktoken; run: pip install 'tiktoken"):
        ChatOpenAI(api_key="any").get_num_tokens("Hello")


def test_anthropics_api_counts_what_would_be_sent() -> None:
    """The model's tools and system messages count; it is no run."""
    log = Log()
    with LoopbackProvider(Answer(body=b'{"input_tokens": 14}')) as provider:
        model = anthropics.chat(provider, callbacks=[log], thinking={"type": "adaptive"}).bind_tools(
            [weather]
        )
        assert model.get_num_tokens_from_messages([SystemMessage("Be brief."), HumanMessage("Hi")]) == 14
        assert model.get_num_tokens_from_messages("Hi", tools=[]) == 14
        assert anthropics.chat(provider, betas=["b-1"]).get_num_tokens("Hello") == 14
    first, second, third = provider.requests
    assert [request["path"].partition("?")[0] for request in provider.requests] == [
        "/v1/messages/count_tokens"
    ] * 3
    assert (first["body"]["system"], first["body"]["thinking"]) == ("Be brief.", {"type": "adaptive"})
    assert [tool["name"] for tool in first["body"]["tools"]] == ["weather"]
    assert "max_tokens" not in first["body"]
    assert second["body"]["tools"] == []
    assert third["headers"]["anthropic-beta"] == "b-1,token-counting-2024-11-01"
    assert log.events == []


def weather(city: str) -> str:
    """The weather of a city."""
    return city
