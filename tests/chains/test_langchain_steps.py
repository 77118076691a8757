"""LangChain's prompts and parsers in our chains, and our models in LangChain's chains."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recorder.chains import LLMChain, PromptTemplate, RunnableSequence, StrOutputParser
from recorder.errors import ConfigError
from recorder.testing import Answer, LoopbackProvider, openai_chat_body, openai_chat_frames
from tests.chains.test_sequence import WORDS, Words
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, chat, name_of, runs
from tests.oracle import new_url

prompts: Any = pytest.importorskip("langchain_core.prompts")
parsers: Any = pytest.importorskip("langchain_core.output_parsers")
integration: Any = pytest.importorskip("recorder.integrations.langchain")
from langchain_core.messages import AIMessage  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
THEIR_PROMPT = prompts.ChatPromptTemplate([("system", "Be brief."), ("human", "Sing about {topic}.")])
OUR_PROMPT = PromptTemplate.from_template("Sing about {topic}.")


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that answers with three words, streamed or not."""

    def answer(body: Any, *more: Any) -> Answer:
        if body.get("stream"):
            return Answer(frames=openai_chat_frames(WORDS))
        return Answer(body=openai_chat_body("".join(WORDS)))

    with LoopbackProvider(answer) as provider:
        yield provider


# -- theirs in ours -----------------------------------------------------------------------------------------------


@both
def test_prompts_and_parsers_of_langchain_are_steps(style: CallStyle, provider: LoopbackProvider) -> None:
    """Texts stream through LangChain's parser; its prompt makes the messages."""
    chain = RunnableSequence(THEIR_PROMPT, chat(provider), parsers.StrOutputParser())
    assert style.invoke(chain, {"topic": "water"}) == "Hello there!"
    assert [text for text in style.stream(chain, "water") if text] == WORDS
    assert [each["role"] for each in provider.requests[0]["body"]["messages"]] == ["system", "user"]
    lonely: Any = OUR_PROMPT | Words() | RunnableLambda(lambda message: message.content.upper())
    assert style.invoke(lonely, "x") == "HELLO THERE!"


@both
def test_a_json_parser_of_langchain_yields_growing_values(style: CallStyle) -> None:
    """As in LangChain. The output of the chain is the last one."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(['{"a": ', "1, ", '"b": 2}']))) as provider:
        chain: Any = OUR_PROMPT | chat(provider, streaming=True) | parsers.JsonOutputParser()
        found: list[Any] = style.stream(chain, "x")
        assert (found[-1], {"a": 1} in found) == ({"a": 1, "b": 2}, True)
        assert style.invoke(chain, "x") == {"a": 1, "b": 2}


def test_an_llm_chain_takes_a_prompt_and_a_parser_of_langchain() -> None:
    """`LLMChain(prompt=..., output_parser=...)`."""
    parser = parsers.CommaSeparatedListOutputParser()
    chain = LLMChain(llm=Words(), prompt=prompts.PromptTemplate.from_template("{a}"), output_parser=parser)
    assert (chain.input_keys, chain.run("x")) == (["a"], ["Hello there!"])


def test_events_name_the_steps_of_langchain() -> None:
    """Its prompt and its parser have events, too."""

    async def main() -> list[Any]:
        chain = RunnableSequence(THEIR_PROMPT, Words(), parsers.StrOutputParser())
        return [event async for event in chain.astream_events("x")]

    found = [event["event"] for event in asyncio.run(main()) if "stream" not in event["event"]]
    assert found == [
        "on_chain_start", "on_prompt_start", "on_prompt_end", "on_chat_model_start", "on_parser_start",
        "on_chat_model_end", "on_parser_end", "on_chain_end",
    ]  # fmt: skip


def test_a_model_of_langchain_is_refused() -> None:
    """With the way to record it."""
    theirs: Any = pytest.importorskip("langchain_openai").ChatOpenAI(api_key="any")
    for use in (lambda: OUR_PROMPT | theirs, lambda: LLMChain(llm=theirs, prompt=OUR_PROMPT)):
        with pytest.raises(ConfigError, match=r"is a model of LangChain; use recorder\.models, or build"):
            use()
    with pytest.raises(ConfigError, match="HumanMessage cannot be a step"):
        _ = OUR_PROMPT | __import__("langchain_core.messages", fromlist=["x"]).HumanMessage("x")


# -- ours in theirs -----------------------------------------------------------------------------------------------


@both
def test_our_model_streams_in_langchains_chain(style: CallStyle, provider: LoopbackProvider) -> None:
    """`prompt | model | parser` with a prompt and a parser of LangChain's is LangChain's chain."""
    chain = THEIR_PROMPT | chat(provider) | parsers.StrOutputParser()
    assert style.invoke(chain, {"topic": "x"}) == "Hello there!"
    assert [text for text in style.stream(chain, {"topic": "x"}) if text] == WORDS
    answer = style.invoke(THEIR_PROMPT | chat(provider), {"topic": "x"})
    assert (type(answer), answer.content) == (AIMessage, "Hello there!")
    retried = style.invoke(THEIR_PROMPT | chat(provider).with_retry() | StrOutputParser(), {"topic": "x"})
    assert retried == "Hello there!"
    assert style.invoke(THEIR_PROMPT | LLMChain(llm=Words(), prompt=OUR_PROMPT), {"topic": "x"})["text"]


@both
def test_a_recorder_of_langchain_stores_our_model_in_its_chain(style: CallStyle, tmp_path: Path) -> None:
    """In `config`: the run of our model stands below the steps of LangChain, in one conversation."""
    url = new_url(tmp_path)
    with integration.ChatHistoryCallback(url) as history:
        config = {"callbacks": [history], "metadata": {"session_id": "c1"}}
        style.stream(THEIR_PROMPT | Words() | parsers.StrOutputParser(), {"topic": "x"}, config)
    found = runs(url)
    model = next(run for run in found if run["operation"] == "chat")
    assert model["parent_run_id"] in {run["id"] for run in found if run["operation"] == "chain"}
    assert ({run["conversation_id"] for run in found}, {run["status"] for run in found}) == (
        {"c1"},
        {"complete"},
    )


def test_our_model_is_still_called_as_a_function(provider: LoopbackProvider) -> None:
    """With a config of ours, or with none."""
    model = chat(provider)
    assert [model("Hi").text, model("Hi", config={"tags": ["a"]}).text] == ["Hello there!"] * 2
    assert (model | StrOutputParser())("Hi", config={"tags": ["a"]}) == "Hello there!"
    assert PLAIN.invoke(OUR_PROMPT, "x") == OUR_PROMPT({"topic": "x"})
