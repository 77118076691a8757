"""`prompt | model | parser`: one chain, which streams, and is stored as the parent of the model's run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from recorder import ChatHistoryCallback
from recorder.callbacks import BaseCallbackHandler
from recorder.chains import PromptTemplate, RunnableSequence, StrOutputParser
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk
from recorder.models import OpenAI, SimpleChatModel
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, openai_completion_frames
from tests.chatting import CALL_STYLES, ON_LOOP, CallStyle, cancelled_at, chat, name_of, runs
from tests.oracle import new_url, sql

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
PROMPT = PromptTemplate.from_template("Sing about {topic}.")
WORDS = ["Hello", " there", "!"]


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """Yield a provider that answers with three words."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(WORDS))) as provider:
        yield provider


class Words(SimpleChatModel):
    """A model that streams three words, and answers with their sum."""

    def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
        yield from WORDS

    def _call(self, messages: Any, **options: Any) -> str:
        return "".join(WORDS)


class Events(BaseCallbackHandler):
    """Notes the names of its calls, with the number of the run and of its parent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int | None]] = []
        self._ids: list[Any] = []

    def _note(self, name: str, run_id: Any, parent: Any) -> None:
        self._ids += [id for id in (run_id,) if id not in self._ids]
        self.seen.append((name, self._ids.index(run_id), self._ids.index(parent) if parent else None))

    def on_chain_start(self, *args: Any, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        self._note("chain start", run_id, parent_run_id)

    def on_chain_end(self, *args: Any, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        self._note("chain end", run_id, parent_run_id)

    def on_chain_error(self, *args: Any, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        self._note("chain error", run_id, parent_run_id)

    def on_chat_model_start(self, *args: Any, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        self._note("model start", run_id, parent_run_id)

    def on_llm_new_token(self, token: Any, *, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        if token:
            self._note(token, run_id, parent_run_id)

    def on_llm_end(self, *args: Any, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        self._note("model end", run_id, parent_run_id)

    def on_llm_error(self, *args: Any, run_id: Any, parent_run_id: Any = None, **more: Any) -> None:
        self._note("model error", run_id, parent_run_id)


# -- results ------------------------------------------------------------------------------------------------------


@both
def test_a_chain_is_called_in_every_way(style: CallStyle, provider: LoopbackProvider) -> None:
    """`invoke`, `stream` and `batch` give texts; the input is a dict, or the value itself."""
    chain = PROMPT | chat(provider) | StrOutputParser()
    with LoopbackProvider() as song:
        complete = PROMPT | chat(song) | StrOutputParser()
        assert style.invoke(complete, {"topic": "water"}).startswith("Verse 1")
        assert [text[:7] for text in style.batch(complete, ["a", "b"])] == ["Verse 1"] * 2
    found: list[Any] = style.stream(chain, "water")
    assert [text for text in found if text] == WORDS
    assert provider.requests[0]["body"]["messages"] == [{"role": "user", "content": "Sing about water."}]


@both
def test_functions_and_chains_are_steps(style: CallStyle) -> None:
    """A function gets the complete output of the step before; a nested chain keeps its own run."""

    async def loud(text: str) -> str:
        return text.upper()

    steps: list[Any] = [PROMPT, Words(), StrOutputParser(), len]
    assert style.invoke(RunnableSequence(*steps), "x") == 12
    assert style.stream(RunnableSequence(*steps), "x") == [12]
    inner = RunnableSequence(*steps[:3], name="inner")
    two: Any = inner | PROMPT | Words() | StrOutputParser()
    assert (repr(two), len((PROMPT | (Words() | StrOutputParser())).steps)) == (
        "inner | PromptTemplate | Words | StrOutputParser",
        3,
    )
    assert style.stream(two, "x")[:3] == WORDS
    if style is ON_LOOP:
        assert style.invoke(inner | loud, "x") == "HELLO THERE!"
    else:
        with pytest.raises(ConfigError, match="loud is asynchronous; call the chain with ainvoke"):
            style.invoke(inner | loud, "x")


@both
def test_a_completion_model_gets_the_text_of_the_prompt(style: CallStyle) -> None:
    """The prompt of legacy completions is the text, without a role."""
    with LoopbackProvider(Answer(frames=openai_completion_frames(WORDS))) as provider:
        llm = OpenAI(base_url=provider.base_url, api_key="any", max_retries=0)
        found: list[Any] = style.stream(PROMPT | llm, "water")
        assert [text for text in found if text] == WORDS
        assert provider.requests[0]["body"]["prompt"] == "Sing about water."


@both
def test_a_chain_without_a_parser_yields_the_models_chunks(style: CallStyle) -> None:
    """They add up to the message."""
    found = style.stream(PROMPT | Words(), "x")
    assert (type(found[0]), sum(found[1:], found[0]).text) == (AIMessageChunk, "Hello there!")
    assert style.invoke(PROMPT | Words(), "x").text == "Hello there!"


@both
def test_retries_and_structured_output_are_steps(style: CallStyle) -> None:
    """What `with_retry` returns streams within a chain, and a chain can be retried itself."""
    chain: Any = PROMPT | Words().with_retry() | StrOutputParser()
    assert style.stream(chain, "x")[:3] == WORDS
    assert style.invoke(chain.with_retry(), "x") == "Hello there!"


# -- handlers and rows ----------------------------------------------------------------------------------------------


@both
def test_handlers_get_the_chain_around_the_model(style: CallStyle) -> None:
    """Every token has the chain's run as its parent, and the model ends before the chain."""
    events = Events()
    style.stream(PROMPT | Words() | StrOutputParser(), "x", {"callbacks": [events]})
    tokens = [(word, 1, 0) for word in WORDS]
    assert events.seen == [
        ("chain start", 0, None),
        ("model start", 1, 0),
        *tokens,
        ("model end", 1, 0),
        ("chain end", 0, None),
    ]


@both
def test_a_chain_is_stored_as_the_parent_of_the_models_run(style: CallStyle, database: str) -> None:
    """A recorder on the model is enough. Both runs are of one conversation, with the names and ids of the call."""
    run_id = str(uuid4())
    config = {"run_id": run_id, "run_name": "song", "tags": ["t"], "metadata": {"session_id": "c1", "a": 1}}
    with ChatHistoryCallback(database) as history:
        style.stream(PROMPT | Words(callbacks=[history]) | StrOutputParser(), {"topic": "x"}, config)
    chain, model = sorted(runs(database), key=lambda run: run["operation"])
    assert (chain["operation"], chain["id"], chain["status"]) == ("chain", run_id, "complete")
    assert (model["operation"], model["parent_run_id"], model["status"]) == ("chat", run_id, "complete")
    assert {chain["conversation_id"], model["conversation_id"]} == {"c1"}
    read = sql(database, "SELECT request, output, tags FROM runs WHERE operation = 'chain'")
    texts = [str(value).replace(" ", "") for value in read[0]]
    assert ["song" in texts[0], '"topic"' in texts[0] or "'topic'" in texts[0]] == [True, True]
    assert "Hellothere!" in texts[1]
    (tags,) = sql(database, "SELECT tags FROM runs WHERE operation = 'chat'")
    assert "seq:step:2" in str(tags[0])


@both
def test_nested_chains_share_one_conversation(style: CallStyle, tmp_path: Path) -> None:
    """The recorder opens one conversation for all runs of one call, and another one for the next call."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        inner = RunnableSequence(PROMPT, Words(callbacks=[history]), StrOutputParser(), name="inner")
        for _ in range(2):
            style.invoke(inner | PROMPT | Words(callbacks=[history]), "x")
    found = runs(url)
    assert len(found) == 8
    assert len({run["conversation_id"] for run in found}) == 2
    outer = {run["id"] for run in found if run["operation"] == "chain" and run["parent_run_id"] is None}
    assert [len(outer), sum(run["parent_run_id"] in outer for run in found)] == [2, 4]


@both
def test_a_recorder_that_is_attached_twice_stores_each_run_once(style: CallStyle, tmp_path: Path) -> None:
    """On the model, on the chain and in the call: it is one handler."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        chain = RunnableSequence(PROMPT, Words(callbacks=[history, history]), callbacks=[history])
        style.invoke(chain, "x", {"callbacks": [history]})
    assert sorted(run["operation"] for run in runs(url)) == ["chain", "chat"]
    assert sql(url, "SELECT count(*) FROM messages") == [(2,)]


# -- ends -----------------------------------------------------------------------------------------------------------


def statuses(url: str) -> dict[str, str]:
    """Return the status of each operation's run."""
    return {run["operation"]: run["status"] for run in runs(url)}


def test_a_stream_that_is_left_ends_as_cancelled_with_its_model(tmp_path: Path) -> None:
    """Leaving the loop, collecting the stream, and closing it: the model's run ends first."""
    url = new_url(tmp_path)
    events = Events()
    with ChatHistoryCallback(url) as history:
        chain = PROMPT | Words(callbacks=[history]) | StrOutputParser()
        stream: Any = chain.stream("x", {"callbacks": [events]})
        assert next(stream) == "Hello"
        stream.close()
        collected = chain.stream("y")
        next(collected)
        del collected
        gc.collect()
    assert [name for name, *_ in events.seen[-2:]] == ["model error", "chain error"]
    assert sorted((run["operation"], run["status"]) for run in runs(url)) == [
        ("chain", "cancelled"),
        ("chain", "cancelled"),
        ("chat", "cancelled"),
        ("chat", "cancelled"),
    ]


def test_a_stream_on_a_loop_that_is_left_ends_as_cancelled(database: str) -> None:
    """The same with `astream`, and with `astream_events`, whose task is cancelled."""

    async def main() -> None:
        with LoopbackProvider(Answer(frames=openai_chat_frames(WORDS), hang_after=2)) as provider:
            async with ChatHistoryCallback(database) as history:
                chain: Any = PROMPT | chat(provider, callbacks=[history]) | StrOutputParser()
                async with aclosing(chain.astream("x")) as chunks:
                    async for text in chunks:
                        if text:
                            break
                async with aclosing(chain.astream_events("x")) as events:
                    async for event in events:
                        if event["event"] == "on_parser_stream" and event["data"]["chunk"]:
                            break

    asyncio.run(main())
    found = runs(database)
    assert [(run["operation"], run["status"]) for run in found if run["operation"] == "chain"] == [
        ("chain", "cancelled")
    ] * 2
    assert [run["status"] for run in found if run["operation"] == "chat"] == ["cancelled"] * 2


def test_a_call_that_is_cancelled_at_any_wait_has_two_ends(tmp_path: Path) -> None:
    """Whichever `await` is cancelled, both runs are cancelled, or complete."""
    url = new_url(tmp_path)

    async def main() -> int:
        with LoopbackProvider(Answer(frames=openai_chat_frames(WORDS))) as provider:
            async with ChatHistoryCallback(url) as history:
                chain = PROMPT | chat(provider, callbacks=[history], streaming=True) | StrOutputParser()
                nth = 1
                while await cancelled_at(nth, chain.ainvoke("x")):
                    nth += 1
        return nth

    times = asyncio.run(main())
    pairs: dict[str, set[str]] = {}
    for run in runs(url):
        pairs.setdefault(run["parent_run_id"] or run["id"], set()).add(run["status"])
    assert times > 2
    assert [found for found in pairs.values() if found not in ({"cancelled"}, {"complete"})] == []


@both
def test_an_error_of_the_model_ends_the_chain_with_it(style: CallStyle, tmp_path: Path) -> None:
    """The error is raised unchanged, and both rows have it."""
    url = new_url(tmp_path)
    with LoopbackProvider(Answer.error(400, "No.")) as provider, ChatHistoryCallback(url) as history:
        chain = PROMPT | chat(provider, callbacks=[history]) | StrOutputParser()
        with pytest.raises(Exception, match=r"No\."):
            style.invoke(chain, "x")
    rows = sql(url, "SELECT operation, status, error_type FROM runs ORDER BY operation")
    assert rows == [(kind, "error", "openai.BadRequestError") for kind in ("chain", "chat")]


def test_events_end_with_the_error_of_the_chain(caplog: pytest.LogCaptureFixture) -> None:
    """It is raised after the last event. If the loop is left before, nothing is logged of it."""

    class Failing(SimpleChatModel):
        def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
            yield "Hel"
            raise RuntimeError("no answer")

    async def main(limit: int) -> list[str]:
        seen: list[str] = []
        async with aclosing(RunnableSequence(PROMPT, Failing()).astream_events("x")) as events:  # type: ignore[type-var]
            async for event in events:
                seen.append(event["event"])
                if len(seen) == limit:
                    break
        return seen

    with pytest.raises(RuntimeError, match="no answer"):
        asyncio.run(main(99))
    assert asyncio.run(main(4))[-1] == "on_chat_model_start"
    gc.collect()
    assert caplog.records == []


@both
def test_a_missing_variable_is_an_error_of_the_chain(style: CallStyle, tmp_path: Path) -> None:
    """The chain's run is stored with the error; the model is not called."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history, pytest.raises(ConfigError, match="lacks a value for 'topic'"):
        style.invoke(PROMPT | Words(callbacks=[history]), {"wrong": 1})
    assert statuses(url) == {"chain": "error"}


@both
def test_a_handler_that_raises_does_not_end_the_chain(style: CallStyle, caplog: Any) -> None:
    """Its error is logged; with `raise_error` it is raised, and the chain fails."""

    class Broken(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("broken start")

        async def on_chain_end(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("broken end")

    chain = PROMPT | Words() | StrOutputParser()
    assert style.invoke(chain, "x", {"callbacks": [Broken()]}) == "Hello there!"
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "Broken.on_chain_start raised RuntimeError('broken start')",
        "Broken.on_chain_end raised RuntimeError('broken end')",
    ]
    strict, events = Broken(), Events()
    strict.raise_error = True
    with pytest.raises(RuntimeError, match="broken start"):
        style.invoke(chain, "x", {"callbacks": [events, strict]})
    assert [name for name, *_ in events.seen] == ["chain start", "chain error"]


# -- bad use ----------------------------------------------------------------------------------------------------------


def test_what_is_no_step_is_refused() -> None:
    """Values, dicts, classes and generator functions; options that no model would get."""

    def pieces(text: str) -> Iterator[str]:
        yield text

    for step, error in (
        (3, "3 cannot be a step"),
        ({"a": PROMPT}, "cannot be a step"),
        (StrOutputParser, "cannot be a step"),
        (pieces, "pieces is a generator"),
    ):
        with pytest.raises(ConfigError, match=error):
            _ = PROMPT | step
    with pytest.raises(ConfigError, match="has no steps"):
        RunnableSequence()
    with pytest.raises(ConfigError, match="'temperature' is for a model, but the chain begins with Prompt"):
        (PROMPT | Words()).invoke("x", temperature=0)
    with pytest.raises(ConfigError, match="got int 3"):
        StrOutputParser().invoke(3)
    with pytest.raises(ConfigError, match="version 'v1'"):
        asyncio.run(anext((PROMPT | Words()).astream_events("x", version="v1")))  # type: ignore[arg-type]


def test_options_go_to_a_model_at_the_beginning(provider: LoopbackProvider) -> None:
    """`chain.stream(..., stop=[...])` of a chain that begins with a model."""
    found = list((chat(provider) | StrOutputParser()).stream("Hi", stop=["x"]))
    assert "".join(found) == "Hello there!"
    assert provider.requests[0]["body"]["stop"] == ["x"]


def test_a_parser_takes_messages_and_texts() -> None:
    """Blocks that are no text are left out."""
    parser = StrOutputParser()
    blocks: Any = [{"type": "text", "text": "a"}, {"type": "image"}, "b"]
    assert [parser.invoke(AIMessage(blocks)), parser.invoke("c"), *parser.stream("d"), parser.parse("e")] == [
        "ab",
        "c",
        "d",
        "e",
    ]
