"""`OpenAI`, the legacy completions, over the real SDK and a socket, also compared with langchain-openai."""

from __future__ import annotations

import asyncio
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from recorder.callbacks import (
    AsyncIteratorCallbackHandler,
    BaseCallbackHandler,
    StreamingStdOutCallbackHandler,
)
from recorder.errors import ConfigError
from recorder.messages import Generation, GenerationChunk, HumanMessage, SystemMessage
from recorder.models import OpenAI
from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_completion_body,
    openai_completion_frames,
    openai_error_frame,
    song,
)
from tests.chatting import CALL_STYLES, ON_LOOP, PLAIN, CallStyle, Log, history_at, name_of, recorded, runs
from tests.oracle import sql

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
FRAMES = openai_completion_frames(["Hello", " there", "!"])
SNAPSHOT = "gpt-3.5-turbo-instruct:20230824-v2"


def llm(provider: LoopbackProvider, **options: Any) -> OpenAI:
    """Return a model of this provider that sends each request once, without retries."""
    return OpenAI(**{"base_url": provider.base_url, "api_key": "any", "max_retries": 0, **options})


def echo(body: dict[str, Any], path: str) -> str:
    """Answer with the prompt."""
    return f"You said: {body['prompt']}"


# -- answers ---------------------------------------------------------------------------------------------------


def test_a_completion_model_can_be_called() -> None:
    """`llm("a prompt")` returns text, and the request has LangChain's default options."""
    with LoopbackProvider() as provider:
        assert llm(provider)("Write me a song about sparkling water.") == song()
    (request,) = provider.requests
    assert request["path"] == "/v1/completions"
    assert request["body"] == {
        "model": "gpt-3.5-turbo-instruct", "prompt": "Write me a song about sparkling water.", "temperature": 0.7,
        "max_tokens": 256,
    }  # fmt: skip


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_invoke_returns_the_text(style: CallStyle, streaming: bool) -> None:
    """The answer is the same with and without streaming."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = style.invoke(llm(provider, streaming=streaming, callbacks=[log]), "Hi")
    assert answer == "Hello there!"
    assert "".join(log.tokens) == ("Hello there!" if streaming else "")
    tokens = ["llm_new_token"] if streaming else []
    assert log.names == ["llm_start", "chat_new_message", *tokens, "chat_new_message", "llm_end"]


@both
def test_a_stream_yields_pieces_of_text(style: CallStyle) -> None:
    """The request asks for the usage."""
    with LoopbackProvider("Hello there!") as provider:
        pieces: list[Any] = style.stream(llm(provider), "Hi")
    assert [piece for piece in pieces if piece] == ["Hello", " there", "!"]
    assert provider.requests[0]["body"]["stream_options"] == {"include_usage": True}


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_several_prompts_are_several_runs(style: CallStyle, streaming: bool) -> None:
    """Each prompt has its generations, and the token usage of all is added, also with streaming."""
    log = Log()
    with LoopbackProvider(echo) as provider:
        result = style.generate(llm(provider, streaming=streaming, callbacks=[log]), ["one", "two"])
    assert [choices[0].text for choices in result.generations] == ["You said: one", "You said: two"]
    assert result.generations[0] == [Generation("You said: one", {"finish_reason": "stop", "logprobs": None})]
    assert result.llm_output["token_usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 8,
        "total_tokens": 10,
    }
    assert result.llm_output["model_name"] == SNAPSHOT
    assert len(provider.requests) == 2
    started = {kwargs["run_id"]: args[1] for args, kwargs in log.calls_of("on_llm_start")}
    assert sorted(started.values()) == [["one"], ["two"]]
    assert {info.run_id for info in result.run} == started.keys()


def test_one_prompt_without_a_list_is_refused() -> None:
    """Otherwise each letter would be a request."""
    with LoopbackProvider(echo) as provider, pytest.raises(ConfigError, match=r"pass \[text\]"):
        llm(provider).generate("Tell me a joke.")
    assert provider.requests == []


@both
def test_a_batch_answers_in_order(style: CallStyle) -> None:
    """The answers are texts in the order of the prompts."""
    with LoopbackProvider(echo) as provider:
        answers = style.batch(llm(provider), ["a", "b", "c"], {"max_concurrency": 2})
    assert answers == ["You said: a", "You said: b", "You said: c"]


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_several_completion_choices_are_several_generations(style: CallStyle, streaming: bool) -> None:
    """With `n=2` both texts are returned; `invoke` returns the first one."""
    made = {"n": 2, "logprobs": 1}
    frames = openai_completion_frames([["a", "b"], ["c", "d"]], **made)  # type: ignore[arg-type]
    body = openai_completion_body([["a", "b"], ["c", "d"]], **made)  # type: ignore[arg-type]
    answer = Answer(frames=frames) if streaming else Answer(body=body)
    with LoopbackProvider(answer) as provider:
        model = llm(provider, streaming=streaming, n=2, logprobs=1)
        result = style.generate(model, ["Hi"])
        assert style.invoke(model, "Hi") == "ab"
    (choices,) = result.generations
    assert [choice.text for choice in choices] == ["ab", "cd"]
    tokens = ["".join(choice.generation_info["logprobs"]["tokens"]) for choice in choices]
    assert tokens == ["ab", "cd"]


@both
def test_log_probabilities_come_with_their_pieces(style: CallStyle) -> None:
    """Each chunk has its own, and the result has all of them."""
    log = Log()
    frames = openai_completion_frames(["Hello", "!"], logprobs=2)
    with LoopbackProvider(Answer(frames=frames)) as provider:
        style.stream(llm(provider, logprobs=2, callbacks=[log]), "Hi")
    chunks = [kwargs["chunk"] for _, kwargs in log.calls_of("on_llm_new_token") if kwargs["chunk"].text]
    logprobs = [chunk.generation_info["logprobs"] for chunk in chunks]
    assert [each["tokens"] for each in logprobs] == [["Hello"], ["!"]]
    assert [each["text_offset"] for each in logprobs] == [[0], [5]]
    (((result,), _),) = log.calls_of("on_llm_end")
    complete = result.generations[0][0].generation_info["logprobs"]
    assert complete["tokens"] == ["Hello", "!"]
    assert complete["token_logprobs"] == [each["token_logprobs"][0] for each in logprobs]
    assert provider.requests[0]["body"]["logprobs"] == 2


def test_tokens_of_completions_are_iterated_during_the_call() -> None:
    """`AsyncIteratorCallbackHandler` works as with chat models."""

    async def main(model: OpenAI, handler: AsyncIteratorCallbackHandler) -> str:
        task = asyncio.create_task(model.agenerate(["Hi"]))
        text = "".join([token async for token in handler.aiter()])
        await task
        return text

    handler = AsyncIteratorCallbackHandler()
    with LoopbackProvider("Hello there!") as provider:
        assert (
            asyncio.run(main(llm(provider, streaming=True, callbacks=[handler]), handler)) == "Hello there!"
        )


def test_the_stdout_handler_prints_completions() -> None:
    """`llm.generate(["Tell me a joke."])` prints the tokens."""
    out = io.StringIO()
    with LoopbackProvider("A joke.") as provider, redirect_stdout(out):
        llm(provider, streaming=True, callbacks=[StreamingStdOutCallbackHandler()]).generate(
            ["Tell me a joke."]
        )
    assert out.getvalue() == "A joke."


# -- input and options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("Hi", "Hi"),
        (HumanMessage("Hi"), "Human: Hi"),
        ([SystemMessage("Be brief."), HumanMessage("Hi")], "System: Be brief.\nHuman: Hi"),
        ([("user", "Hi"), ("ai", "Hello"), ("user", "Ho")], "Human: Hi\nAI: Hello\nHuman: Ho"),
    ],
    ids=["text", "message", "messages", "pairs"],
)
def test_messages_become_one_text(given: Any, sent: str) -> None:
    """Messages are written as one prompt, as LangChain writes them."""
    with LoopbackProvider("Hello") as provider:
        llm(provider).invoke(given)
    assert provider.requests[0]["body"]["prompt"] == sent


OPTIONS: dict[str, Any] = {
    "n": 1, "best_of": 3, "echo": True, "suffix": "!", "seed": 7, "stop": ["END"], "top_p": 0.5, "user": "ann",
    "logit_bias": {"50256": -100}, "presence_penalty": 0.1, "temperature": 0, "max_tokens": 9,
}  # fmt: skip


@both
@pytest.mark.parametrize("where", ["constructor", "model_kwargs", "call", "bind"])
def test_all_options_of_completions_pass_through(style: CallStyle, where: str) -> None:
    """Options may be given to the constructor, to the call or to `bind`."""
    with LoopbackProvider("Hello") as provider:
        makes = {"constructor": OPTIONS, "model_kwargs": {"model_kwargs": OPTIONS}}
        model = llm(provider, **makes.get(where, {}))
        if where == "bind":
            model = model.bind(**OPTIONS)
        style.invoke(model, "Hi", **(OPTIONS if where == "call" else {}))
    (request,) = provider.requests
    assert request["body"] == {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi", **OPTIONS}


def test_none_removes_a_default_option() -> None:
    """Then servers use their own defaults."""
    with LoopbackProvider("Hello") as provider:
        llm(provider, temperature=None, max_tokens=None, stream_usage=False).invoke("Hi", stream=True)
    assert provider.requests[0]["body"] == {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi", "stream": True}


def test_langchains_argument_names_are_accepted_for_completions() -> None:
    """`model_name`, `openai_api_key`, `openai_api_base`, `openai_organization` and `request_timeout` work."""
    with LoopbackProvider("Hello") as provider:
        OpenAI(
            model_name="davinci-002", openai_api_key="hidden", openai_api_base=provider.base_url, request_timeout=5,
            openai_organization="org-1", batch_size=20, verbose=True,
        ).invoke("Hi")  # fmt: skip
    (request,) = provider.requests
    assert request["body"]["model"] == "davinci-002"
    assert request["headers"]["authorization"] == "Bearer hidden"
    assert request["headers"]["openai-organization"] == "org-1"


@both
def test_an_unknown_option_of_completions_raises_the_sdks_error(style: CallStyle) -> None:
    """No request is sent."""
    with LoopbackProvider("Hello") as provider, pytest.raises(TypeError, match="temprature"):
        style.invoke(llm(provider), "Hi", temprature=1)
    assert provider.requests == []


# -- errors ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_an_error_status_of_completions_raises_the_sdks_error(style: CallStyle, way: str) -> None:
    """Handlers receive the error."""
    log = Log()
    with LoopbackProvider(Answer.error(429)) as provider, pytest.raises(openai.RateLimitError):
        getattr(style, way)(llm(provider, callbacks=[log]), "Hi")
    assert log.names == ["llm_start", "chat_new_message", "llm_error"]


@both
def test_an_error_event_keeps_the_partial_completion(style: CallStyle, tmp_path: Path) -> None:
    """The SDK's error is raised, and the partial answer is stored."""
    frames = [*FRAMES[:2], openai_error_frame("Overloaded")]
    log = Log()
    with (
        LoopbackProvider(Answer(frames=frames)) as provider,
        history_at(tmp_path) as history,
        pytest.raises(openai.APIError, match="Overloaded"),
    ):
        style.stream(llm(provider, callbacks=[history, log]), "Hi")
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("error", "Hello there")
    assert found.transcript == [("user", "Hi"), ("assistant", "Hello there")]
    assert log.calls_of("on_llm_error")[0][1]["response"].generations[0][0].text == "Hello there"


@both
def test_a_broken_connection_keeps_the_partial_completion(style: CallStyle, tmp_path: Path) -> None:
    """The text and the frames before the break are stored."""
    with (
        LoopbackProvider(Answer(frames=FRAMES, cut_after=2)) as provider,
        history_at(tmp_path) as history,
        pytest.raises(openai.APIConnectionError),
    ):
        style.stream(llm(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text, found.body) == ("error", "Hello there", b"".join(FRAMES[:2]))


def test_closing_a_completion_stream_cancels_the_run(tmp_path: Path) -> None:
    """The text until then is stored."""
    with LoopbackProvider(Answer(frames=FRAMES)) as provider, history_at(tmp_path) as history:
        stream: Any = llm(provider, callbacks=[history]).stream("Hi")
        assert next(stream) == "Hello"
        stream.close()
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("cancelled", "Hello")


# -- what is stored --------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_completion_is_recorded_completely(style: CallStyle, way: str, tmp_path: Path) -> None:
    """Prompt and completion are messages; tokens, bytes, usage and the run's columns are stored."""
    body = openai_completion_body(["Hello there!"])
    answer = Answer(frames=FRAMES) if way == "stream" else Answer(body=body)
    with LoopbackProvider(answer) as provider, history_at(tmp_path) as history:
        getattr(style, way)(llm(provider, callbacks=[history]), "Say hello.")
    found = recorded(history.recorder.url)
    assert found.transcript == [("user", "Say hello."), ("assistant", "Hello there!")]
    assert found.text == "Hello there!"
    assert found.body == (b"".join(FRAMES) if way == "stream" else body)
    run = found.run
    assert (run["operation"], run["wire"], run["status"]) == (
        "text_completion",
        "openai.completions",
        "complete",
    )
    assert (run["request_model"], run["response_model"]) == ("gpt-3.5-turbo-instruct", SNAPSHOT)
    assert (run["provider_name"], run["finish_reason"]) == ("openai", "stop")
    assert (run["input_tokens"], run["total_tokens"]) == (5, 5 + run["output_tokens"])
    assert run["response_id"].startswith("cmpl-")
    assert "Say hello." not in run["request"]


def test_frames_of_completions_are_compressed_with_their_dictionary(tmp_path: Path) -> None:
    """The zstd dictionary is that of the wire format."""
    with LoopbackProvider(Answer(frames=FRAMES)) as provider, history_at(tmp_path) as history:
        list(llm(provider, callbacks=[history]).stream("Hi"))
    assert set(sql(history.recorder.url, "SELECT dictionary FROM frames")) == {("openai.completions.1",)}


def test_a_completion_that_a_limit_cut_is_incomplete(tmp_path: Path) -> None:
    """The finish reason is `length`."""
    frames = openai_completion_frames(["Hello"], finish_reason="length")
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        llm(provider, callbacks=[history], streaming=True)("Hi")
    assert recorded(history.recorder.url).run["status"] == "incomplete"


def test_a_completion_stream_without_an_end_is_interrupted(tmp_path: Path) -> None:
    """Neither a finish reason nor the terminator arrived."""
    with LoopbackProvider(Answer(frames=FRAMES[:2])) as provider, history_at(tmp_path) as history:
        assert "".join(llm(provider, callbacks=[history]).stream("Hi")) == "Hello there"
    assert recorded(history.recorder.url).run["status"] == "interrupted"


def test_several_choices_are_sibling_messages(tmp_path: Path) -> None:
    """One run has two answers, which are two branches."""
    frames = openai_completion_frames([["a"], ["b"]], n=2)
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        llm(provider, n=2, streaming=True, callbacks=[history])("Hi")
    url = history.recorder.url
    assert len(runs(url)) == 1
    rows = sql(url, "SELECT branch, role, content FROM transcripts ORDER BY position, branch")
    assert rows == [(1, "user", "Hi"), (1, "assistant", "a"), (2, "assistant", "b")]


def test_a_handler_receives_the_messages_of_completions() -> None:
    """A handler needs `on_chat_new_message` only."""
    seen: list[tuple[str, Any]] = []

    class Store(BaseCallbackHandler):
        def on_chat_new_message(self, message: Any) -> None:
            seen.append((message.role, message.content))

    with LoopbackProvider(echo) as provider:
        llm(provider, callbacks=[Store()]).generate(["one", "two"])
    assert seen == [
        ("user", "one"), ("assistant", "You said: one"), ("user", "two"), ("assistant", "You said: two")
    ]  # fmt: skip


# -- compared with langchain-openai ----------------------------------------------------------------------------

langchain = pytest.importorskip("langchain_openai")
Handler: Any = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler
COMPARED = {
    "text": FRAMES,
    "nothing": openai_completion_frames([]),
    "length": openai_completion_frames(["Hello"], finish_reason="length"),
    "log probabilities": openai_completion_frames(["Hello", "!"], logprobs=1),
}
compared = pytest.mark.parametrize("frames", COMPARED.values(), ids=COMPARED)


class LangChainLog(Handler):  # type: ignore[misc]
    """A handler of LangChain's class that writes into one of our logs."""

    def __init__(self) -> None:
        self.log = Log()
        for name in ("on_llm_start", "on_llm_new_token", "on_llm_end", "on_llm_error"):
            setattr(self, name, getattr(self.log, name))


def by_langchain(style: CallStyle, way: str, provider: LoopbackProvider, *args: Any, **options: Any) -> Any:
    """Return the answer of LangChain's model."""
    settings = {"base_url": provider.base_url, "api_key": "any", "max_retries": 0, **options}
    if way in ("stream", "stream_events"):
        settings["model_kwargs"] = {"stream_options": {"include_usage": True}}
    if style is PLAIN:
        return getattr(style, way)(langchain.OpenAI(**settings), *args)

    async def main() -> Any:
        async with openai.DefaultAsyncHttpxClient(verify=False) as http:
            answer = getattr(langchain.OpenAI(http_async_client=http, **settings), f"a{way}")(*args)
            return [each async for each in answer] if "stream" in way else await answer

    return asyncio.run(main())


def shown(log: Log) -> list[Any]:
    """Return the events with the arguments that applications read."""
    found: list[Any] = []
    for name, args, kwargs in log.events:
        known = {key: kwargs.get(key) for key in ("run_id", "parent_run_id", "tags")}
        if name == "on_llm_start":
            metadata = {key: value for key, value in kwargs["metadata"].items() if key != "lc_versions"}
            found.append((name, args[1], metadata, known))
        elif name == "on_llm_new_token":
            info = kwargs["chunk"].generation_info or {}
            details = {key: value for key, value in info.items() if value is not None}
            found.append((name, args[0] if args else kwargs["token"], kwargs["chunk"].text, details, known))
        elif name == "on_llm_end":
            (choice,) = args[0].generations[0]
            found.append((name, choice.text, choice.generation_info, known))
        elif name == "on_llm_error":
            found.append(
                (name, type(args[0]), str(args[0]), kwargs["response"].generations[0][0].text, known)
            )
    return found


@both
@compared
def test_pieces_and_callbacks_of_completions_equal_langchains(style: CallStyle, frames: list[bytes]) -> None:
    """The pieces and the events equal those of langchain-openai's `OpenAI`."""
    their, our = LangChainLog(), LangChainLog()
    config = {"run_id": uuid4(), "tags": ["a"], "metadata": {"n": 1}, "run_name": "greeting"}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        expected = by_langchain(style, "stream", provider, "Hi", {**config, "callbacks": [their]})
        found = style.stream(llm(provider), "Hi", {**config, "callbacks": [our]})
    assert found == expected
    assert shown(our.log) == shown(their.log)


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_generate_of_completions_equals_langchains(style: CallStyle, streaming: bool) -> None:
    """Generations and their info are the same; LangChain leaves out the usage of streams."""
    made: dict[str, Any] = {"logprobs": 1}
    frames, body = openai_completion_frames(["Hi", "!"], **made), openai_completion_body(["Hi", "!"], **made)
    answer = Answer(frames=frames) if streaming else Answer(body=body)
    with LoopbackProvider(answer) as provider:
        expected = by_langchain(style, "generate", provider, ["one"], streaming=streaming)
        found = style.generate(llm(provider, streaming=streaming), ["one"])
    assert [(choice.text, choice.generation_info) for choice in found.generations[0]] == [
        (choice.text, choice.generation_info) for choice in expected.generations[0]
    ]
    if not streaming:
        assert found.llm_output["token_usage"] == expected.llm_output["token_usage"]
    assert expected.llm_output.keys() <= found.llm_output.keys()


@both
def test_a_failed_completion_stream_equals_langchains(style: CallStyle) -> None:
    """Handlers receive the start, the tokens, and the error with the partial answer."""
    their, our = LangChainLog(), LangChainLog()
    frames = [*FRAMES[:2], openai_error_frame("The server had an error")]
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        with pytest.raises(openai.APIError, match="The server had an error"):
            by_langchain(style, "stream", provider, "Hi", {**config, "callbacks": [their]})
        with pytest.raises(openai.APIError, match="The server had an error"):
            style.stream(llm(provider), "Hi", {**config, "callbacks": [our]})
    assert shown(our.log) == shown(their.log)


@both
def test_the_request_of_completions_equals_langchains(style: CallStyle) -> None:
    """Only nulls and values that are the API's own defaults are missing."""
    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        by_langchain(style, "stream", provider, "Hi", seed=7, temperature=0.1)
        style.stream(llm(provider, seed=7, temperature=0.1), "Hi")
    expected, found = [request["body"] for request in provider.requests]
    spared = {
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "top_p": 1,
        "n": 1,
        "logprobs": None,
        "seed": None,
    }
    assert found == {key: value for key, value in expected.items() if spared.get(key, ...) != value}


def test_events_of_completions_equal_langchains() -> None:
    """`astream_events` yields the same dictionaries; our last one has the usage, too."""
    config = {"run_id": uuid4(), "tags": ["a"], "run_name": "greeting"}

    async def main(model: OpenAI) -> list[dict[str, Any]]:
        return [event async for event in model.astream_events("Hi", dict(config), version="v2")]

    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        expected = by_langchain(ON_LOOP, "stream_events", provider, "Hi", dict(config))
        found = asyncio.run(main(llm(provider)))
    for event in expected:
        event["metadata"].pop("lc_versions", None)  # all events share one dict
    output = found[-1]["data"]["output"].pop("llm_output")
    assert expected[-1]["data"]["output"].pop("llm_output") is None
    assert output["token_usage"]["completion_tokens"] == 3
    assert found == expected


def test_events_of_completions_have_their_own_type() -> None:
    """`include_types=["llm"]` selects them, and `["chat_model"]` does not."""

    async def names(model: OpenAI, **filters: Any) -> list[str]:
        return [event["event"] async for event in model.astream_events("Hi", **filters)]

    with LoopbackProvider("Hello") as provider:
        assert set(asyncio.run(names(llm(provider), include_types=["llm"]))) == {
            "on_llm_start", "on_llm_stream", "on_llm_end"
        }  # fmt: skip
        assert asyncio.run(names(llm(provider), include_types=["chat_model"])) == []


def test_chunks_of_completions_are_generation_chunks() -> None:
    """Handlers receive them with the tokens, and they can be added."""
    log = Log()
    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        list(llm(provider, callbacks=[log]).stream("Hi"))
    chunks = [kwargs["chunk"] for _, kwargs in log.calls_of("on_llm_new_token")]
    assert {type(chunk) for chunk in chunks} == {GenerationChunk}
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert (total.text, total.generation_info["finish_reason"]) == ("Hello there!", "stop")
