"""`LLMChain`: a prompt, a model and a parser with LangChain's older methods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from recorder import ChatHistoryCallback
from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.chains import ChatPromptTemplate, LLMChain, PromptTemplate
from recorder.errors import ConfigError
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames
from tests.chains.test_sequence import PROMPT, Events, Words
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, chat, name_of, runs
from tests.oracle import new_url

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
TEXT = "Hello there!"
TWO = PromptTemplate.from_template("{a} {b}")


def chain_of(**options: Any) -> LLMChain:
    """Return a chain over a model that streams three words."""
    return LLMChain(**{"llm": Words(), "prompt": PROMPT, **options})


@both
def test_the_inputs_come_back_with_the_answer(style: CallStyle) -> None:
    """`invoke` and `batch`; the input is a dict or the only value; `output_key` names the answer."""
    chain = chain_of()
    assert style.invoke(chain, {"topic": "x", "more": 1}) == {"topic": "x", "more": 1, "text": TEXT}
    assert style.invoke(chain_of(output_key="song"), "x") == {"topic": "x", "song": TEXT}
    assert style.batch(chain, ["x", "y"]) == [{"topic": "x", "text": TEXT}, {"topic": "y", "text": TEXT}]
    found = style.invoke(chain, "x", return_only_outputs=True, include_run_info=True)
    assert (found["text"], list(found), type(found["__run"].run_id)) == (TEXT, ["text", "__run"], UUID)
    assert (chain.input_keys, chain.output_keys) == (["topic"], ["text"])


@both
def test_the_answer_streams_to_the_caller_and_to_the_callbacks(style: CallStyle) -> None:
    """Each piece is under the output key; a handler of the chain gets the tokens of the model."""
    events = Events()
    found: list[Any] = style.stream(chain_of(callbacks=[events]), "x")
    assert [piece["text"] for piece in found] == ["Hello", " there", "!", ""]
    assert [name for name, *_ in events.seen] == [
        "chain start", "model start", "Hello", " there", "!", "model end", "chain end",
    ]  # fmt: skip


def test_the_stdout_handler_prints_the_tokens_of_a_chain(capsys: pytest.CaptureFixture[str]) -> None:
    """`LLMChain(llm=ChatOpenAI(streaming=True, callbacks=[...]))`, as tutorials have it."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(["Hello", "!"]))) as provider:
        llm = chat(provider, streaming=True, callbacks=[StreamingStdOutCallbackHandler()])
        assert LLMChain(llm=llm, prompt=PROMPT).run("water") == "Hello!"
    assert capsys.readouterr().out == "Hello!"


def test_the_older_methods_give_the_answer_alone() -> None:
    """`run`, `predict`, `apply`, `__call__` and their asynchronous forms."""

    async def main() -> list[Any]:
        return [
            await chain.arun("x"),
            await chain.apredict(topic="x"),
            (await chain.acall("x"))["text"],
            (await chain.aapply(["x"]))[0]["text"],
        ]

    chain = LLMChain.from_string(Words(), "Sing about {topic}.")
    plain = [
        chain.run("x"),
        chain.run(topic="x"),
        chain.predict(topic="x"),
        chain("x", return_only_outputs=True)["text"],
        chain.apply([{"topic": "x"}])[0]["text"],
        chain_of(prompt=TWO).run(a=1, b=2),
    ]
    assert [*plain, *asyncio.run(main())] == [TEXT] * 10


def test_each_call_has_callbacks_tags_metadata_and_a_name(tmp_path: Path) -> None:
    """What is passed to `__call__` is stored with the chain and with the model's run."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        chain = chain_of(callbacks=[history], tags=["a"], metadata={"session_id": "c1"}, name="singer")
        chain("x", tags=["b"], metadata={"k": 1}, run_name="once")
    found = {run["operation"]: run for run in runs(url)}
    assert found["chat"]["parent_run_id"] == found["chain"]["id"]
    assert [run["conversation_id"] for run in found.values()] == ["c1", "c1"]
    assert [run["tags"] for run in found.values()] == ['["b","a"]'] * 2
    assert '"name":"once"' in found["chain"]["request"]


@both
def test_options_and_stop_sequences_reach_the_model(style: CallStyle) -> None:
    """`llm_kwargs` of the chain, and `stop` among the inputs."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(["Hi"]))) as provider:
        chain = chain_of(llm=chat(provider), llm_kwargs={"temperature": 0})
        style.stream(chain, {"topic": "x", "stop": ["y"]})
        body = provider.requests[0]["body"]
    assert (body["temperature"], body["stop"]) == (0, ["y"])


@both
def test_a_parser_makes_the_answer(style: CallStyle) -> None:
    """A function in place of the parser gets the complete message, also in a stream."""
    chain = chain_of(output_parser=lambda message: len(message.text), prompt=ChatPromptTemplate(["{topic}"]))
    assert style.invoke(chain, "x") == {"topic": "x", "text": 12}
    assert style.stream(chain, "x") == [{"text": 12}]


def test_a_verbose_chain_prints_its_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines are LangChain's."""
    chain_of(verbose=True).run("water")
    assert capsys.readouterr().out == (
        "\n\n\033[1m> Entering new LLMChain chain...\033[0m\n"
        "Prompt after formatting:\n\033[32;1m\033[1;3mHuman: Sing about water.\033[0m\n\n"
        "\n\033[1m> Finished chain.\033[0m\n"
    )


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda: chain_of(llm="gpt-4o"), "llm is 'gpt-4o'; pass a model of recorder.models"),
        (lambda: chain_of(prompt="Sing."), "'Sing.' cannot be a step"),
        (lambda: chain_of(prompt=Words()), "pass a PromptTemplate or a ChatPromptTemplate"),
        (lambda: chain_of(conversation_id="c"), "conversation_id belongs to a chain with memory="),
        (lambda: chain_of().invoke({"wrong": 1}), "LLMChain needs the input 'topic', and got 'wrong'"),
        (lambda: chain_of(prompt=TWO).run("x"), r"has the inputs \['a', 'b'\], and got 'x'"),
        (lambda: chain_of().run(), "got 0 values and 0 names"),
        (lambda: chain_of().run("a", "b"), "got 2 values and 0 names"),
        (lambda: chain_of().run("a", topic="b"), "got 1 values and 1 names"),
        (lambda: chain_of().invoke("x", temperature=0), "does not know the option 'temperature'; .* llm_kwargs="),
    ],
    ids=["llm", "text", "model", "id", "missing", "one for two", "nothing", "two", "both", "option"],
)  # fmt: skip
def test_bad_use_is_a_clear_error(use: Any, error: str) -> None:
    """Each error says what was passed and what to pass."""
    with pytest.raises(ConfigError, match=error):
        use()


def test_a_chain_has_retries_and_fallbacks() -> None:
    """What models have, chains have."""
    failing = chain_of(output_parser=lambda message: 1 / 0)
    assert PLAIN.invoke(failing.with_fallbacks([chain_of()]), "x")["text"] == TEXT
