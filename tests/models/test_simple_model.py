"""`SimpleChatModel`: a subclass with one method gets all methods of a model."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.errors import ConfigError
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    ChatGeneration,
    ChatGenerationChunk,
    HumanMessage,
    LLMResult,
    SystemMessage,
)
from recorder.models import SimpleChatModel
from tests.chatting import CALL_STYLES, ON_LOOP, PLAIN, CallStyle, Log, history_at, name_of, recorded, runs

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


# -- a model in thirty lines, which streams and answers at once -----------------------------------------------


class Oracle(SimpleChatModel):
    """A model that answers yes or no by the length of the question, word by word."""

    model_name = "oracle-1"
    provider_name = "delphi"

    def __init__(self, doubt: int = 7, **settings: Any) -> None:
        super().__init__(**settings)
        self.doubt = doubt

    def _call(self, messages: list[Any], stop: list[str] | None = None, **options: Any) -> str:
        return "".join(self._stream(messages, stop, **options))

    def _stream(self, messages: list[Any], stop: list[str] | None = None, **options: Any) -> Iterator[str]:
        question = messages[-1].text
        yes = (len(question) + options.get("seed", 0)) % 2 == 0
        answer = "Yes , of course ." if yes else "No , never ."
        if len(question) % self.doubt == 0:
            answer = "Ask again ."
        for word in answer.split():
            if word in (stop or ()):
                return
            yield word if word in ".,Yes,No,Ask" else f" {word}"


def test_a_model_of_the_users_own_takes_thirty_lines() -> None:
    """This holds for the class above and for the first example of docs/providers.md."""
    page = Path(__file__).parents[2] / "docs" / "providers.md"
    _, shown, *_ = page.read_text(encoding="utf-8").split("```python\n")
    shown = shown[shown.index("class Program") : shown.index("\n\n\nwith ")]
    assert "_stream" in shown
    for source in (inspect.getsource(Oracle), shown):
        assert len(source.splitlines()) <= 30


@both
def test_a_simple_model_has_all_methods_of_a_model(style: CallStyle, tmp_path: Path) -> None:
    """`invoke`, `stream`, `batch` and `generate` work, and all runs are recorded."""
    with history_at(tmp_path) as history:
        model = Oracle(callbacks=[history])
        assert style.invoke(model, "Is it alive?").content == "Yes, of course."
        assert [chunk.content for chunk in style.stream(model, "Is it big?")] == [
            "Yes",
            ",",
            " of",
            " course",
            ".",
            "",
        ]
        assert [answer.content for answer in style.batch(model, ["ab", "abc"])] == [
            "Yes, of course.",
            "No, never.",
        ]
        result = style.generate(model, [[HumanMessage("ab")], ["abc"]])
    assert [choices[0].text for choices in result.generations] == ["Yes, of course.", "No, never."]
    assert result.llm_output["model_name"] == "oracle-1"
    url = history.recorder.url
    assert [run["status"] for run in runs(url)] == ["complete"] * 6
    assert {recorded(url, run["id"]).text for run in runs(url)} == {"Yes, of course.", "No, never."}


@both
def test_options_of_the_call_override_those_of_the_model(style: CallStyle) -> None:
    """The method receives them, and `stop`, too."""
    model = Oracle(seed=1)
    assert style.invoke(model, "ab").content == "No, never."
    assert style.invoke(model, "ab", seed=2).content == "Yes, of course."
    assert style.invoke(model.bind(stop=["of"]), "ab", seed=2).content == "Yes,"
    assert style.invoke(model, "ab", stop=["never"]).content == "No,"


# -- models that do not stream ---------------------------------------------------------------------------------


class Echo(SimpleChatModel):
    """A model with one method that cannot stream."""

    def _call(self, messages: list[Any], **options: Any) -> str:
        return f"You said: {messages[-1].text}"


@both
def test_a_model_without_streaming_yields_one_chunk(style: CallStyle) -> None:
    """LangChain's empty last chunk follows it, and handlers receive the token."""
    log = Log()
    first, last = style.stream(Echo(callbacks=[log]), "Hi")
    assert (first.content, last.content, last.chunk_position) == ("You said: Hi", "", "last")
    assert type(first) is AIMessageChunk
    assert first.id == last.id
    assert log.names == [
        "chat_model_start",
        "chat_new_message",
        "llm_new_token",
        "chat_new_message",
        "llm_end",
    ]
    assert log.tokens == ["You said: Hi", ""]


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_invoke_of_a_simple_model_reports_tokens_with_streaming(style: CallStyle, streaming: bool) -> None:
    """Handlers receive tokens only with `streaming=True`."""
    log = Log()
    answer = style.invoke(Echo(callbacks=[log], streaming=streaming), "Hi")
    assert type(answer) is AIMessage
    assert "".join(log.tokens) == ("You said: Hi" if streaming else "")


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_simple_model_is_recorded_without_frames(style: CallStyle, way: str, tmp_path: Path) -> None:
    """Messages, the token and the names are stored; there is no wire format."""
    with history_at(tmp_path) as history:
        getattr(style, way)(
            Echo(callbacks=[history], name="parrot"), [SystemMessage("Be brief."), ("user", "Hi")]
        )
    found = recorded(history.recorder.url)
    assert found.transcript == [("system", "Be brief."), ("user", "Hi"), ("assistant", "You said: Hi")]
    assert list(found.tokens.texts.values()) == ["You said: Hi"]
    assert found.body == b""
    run = found.run
    assert (run["operation"], run["status"], run["wire"]) == ("chat", "complete", None)
    assert (run["provider_name"], run["request_model"], run["frames_sha256"]) == ("echo", "Echo", None)


def test_a_synchronous_method_does_not_block_the_loop() -> None:
    """It runs on a thread; in this test it even waits for the loop."""
    loop_is_free = threading.Event()

    class Slow(SimpleChatModel):
        def _call(self, messages: list[Any], **options: Any) -> str:
            assert loop_is_free.wait(10)
            return "done"

    async def main() -> str:
        task = asyncio.create_task(Slow().ainvoke("Hi"))
        await asyncio.sleep(0)
        loop_is_free.set()
        return str((await task).content)

    assert asyncio.run(main()) == "done"


# -- types of answers ------------------------------------------------------------------------------------------

CALL = {"name": "weather", "args": {"city": "Zürich"}, "id": "call_1", "type": "tool_call"}
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def message() -> AIMessage:
    """Return a message with all fields."""
    return AIMessage(
        "Hi", tool_calls=[CALL], usage_metadata=USAGE, additional_kwargs={"reasoning_content": "Hm"},  # type: ignore[arg-type]
        response_metadata={"finish_reason": "stop", "model_name": "echo-2"},
    )  # fmt: skip


def langchain_result() -> Any:
    """Return an answer as LangChain's objects."""
    messages = pytest.importorskip("langchain_core.messages")
    outputs = pytest.importorskip("langchain_core.outputs")
    answer = messages.AIMessage("Hi", tool_calls=[CALL], usage_metadata=USAGE)
    answer.additional_kwargs["reasoning_content"] = "Hm"
    info = {"finish_reason": "stop", "model_name": "echo-2"}
    return outputs.ChatResult(generations=[outputs.ChatGeneration(message=answer, generation_info=info)])


COMPLETE: dict[str, Callable[[], Any]] = {
    "message": message,
    "generation": lambda: ChatGeneration(message()),
    "result": lambda: LLMResult([[ChatGeneration(message())]]),
    "LangChain's": langchain_result,
}


def answering(*answers: Any, **settings: Any) -> SimpleChatModel:
    """Return a model whose `_generate` returns this answer, or whose `_stream` yields these."""

    class Answers(SimpleChatModel):
        if len(answers) == 1:

            def _generate(self, messages: list[Any], **options: Any) -> Any:
                return answers[0]
        else:

            def _stream(self, messages: list[Any], **options: Any) -> Any:
                yield from answers

    return Answers(**settings)


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("made", COMPLETE.values(), ids=COMPLETE)
def test_a_complete_answer_may_be_a_message_a_generation_or_a_result(
    style: CallStyle, way: str, made: Callable[[], Any], tmp_path: Path
) -> None:
    """Text, reasoning, calls, usage and finish reason are returned and recorded."""
    with history_at(tmp_path) as history:
        result = getattr(style, way)(answering(made(), callbacks=[history]), "Hi")
    answer = result if way == "invoke" else result[0] + result[1:]
    assert (answer.content, answer.tool_calls, answer.usage_metadata) == ("Hi", [CALL], USAGE)
    assert answer.additional_kwargs["reasoning_content"] == "Hm"
    found = recorded(history.recorder.url)
    assert sorted(found.tokens.texts.values()) == [
        "Hi",
        "Hm",
        '{"city": "Z\\u00fcrich"}',
        '{"id":"call_1","name":"weather"}',
    ]
    run = found.run
    assert (run["input_tokens"], run["output_tokens"], run["finish_reason"]) == (3, 2, "stop")
    assert run["response_model"] == "echo-2"


def langchain_chunk(text: str) -> Any:
    """Return a chunk of LangChain's class."""
    return pytest.importorskip("langchain_core.messages").AIMessageChunk(text)


PIECES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "chunk": AIMessageChunk,
    "message": AIMessage,
    "generation": lambda text: ChatGenerationChunk(AIMessageChunk(text)),
    "LangChain's": langchain_chunk,
}


@both
@pytest.mark.parametrize("made", PIECES.values(), ids=PIECES)
def test_a_piece_may_be_text_a_chunk_a_message_or_a_generation(
    style: CallStyle, made: Callable[[str], Any]
) -> None:
    """Each becomes a chunk with the run's id, and the answer is their sum."""
    chunks = style.stream(answering(made("Hel"), made("lo")), "Hi")
    assert [chunk.content for chunk in chunks] == ["Hel", "lo", ""]
    assert {type(chunk) for chunk in chunks} == {AIMessageChunk}
    assert len({chunk.id for chunk in chunks}) == 1
    assert style.invoke(answering(made("Hel"), made("lo")), "Hi").content == "Hello"


@both
def test_tool_calls_may_come_in_pieces(style: CallStyle, tmp_path: Path) -> None:
    """Their tokens have the kinds of tool calls."""
    opened = {"name": "weather", "args": "", "id": "call_1", "index": 0, "type": "tool_call_chunk"}
    rest = {"name": None, "args": '{"city": "Bern"}', "id": None, "index": 0, "type": "tool_call_chunk"}
    pieces = [AIMessageChunk("", tool_call_chunks=[call]) for call in (opened, rest)]  # type: ignore[list-item]
    pieces.append(AIMessageChunk("", additional_kwargs={"refusal": "No."}, usage_metadata=USAGE))  # type: ignore[arg-type]
    with history_at(tmp_path) as history:
        answer = style.invoke(answering(*pieces, callbacks=[history]), "Weather?")
    assert answer.tool_calls[0]["args"] == {"city": "Bern"}
    found = recorded(history.recorder.url)
    assert list(found.tokens.texts.values()) == [
        '{"id":"call_1","name":"weather"}',
        '{"city": "Bern"}',
        "No.",
    ]
    assert found.run["total_tokens"] == 5


@both
@pytest.mark.parametrize(
    "odd", [None, 7, b"bytes", HumanMessage("Hi"), object()], ids=lambda odd: type(odd).__name__
)
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_an_invalid_answer_is_refused(style: CallStyle, way: str, odd: Any, tmp_path: Path) -> None:
    """The error says what to return, and the pieces before it are stored."""
    with history_at(tmp_path) as history:
        for model in (answering(odd, callbacks=[history]), answering("Hel", odd, callbacks=[history])):
            with pytest.raises(ConfigError, match="return or yield a str"):
                getattr(style, way)(model, "Hi")
    first, second = runs(history.recorder.url)
    assert (first["status"], second["status"]) == ("error", "error")
    assert recorded(history.recorder.url, second["id"]).text == "Hel"


@both
def test_empty_pieces_give_an_empty_answer(style: CallStyle) -> None:
    """`invoke` returns a message without content."""
    model = answering("", "")
    assert style.invoke(model, "Hi").content == ""
    assert [chunk.content for chunk in style.stream(model, "Hi")] == ["", "", ""]


def test_a_chunk_with_the_last_position_is_the_last() -> None:
    """No empty chunk follows it."""
    chunks = list(answering("Hel", AIMessageChunk("lo", chunk_position="last")).stream("Hi"))
    assert [chunk.content for chunk in chunks] == ["Hel", "lo"]


def test_the_pieces_of_a_model_are_not_changed() -> None:
    """A piece that is yielded again has no data of the run before."""
    piece = AIMessageChunk("Hi")
    model = answering(piece, piece)
    first, second = list(model.stream("Hi")), list(model.stream("Hi"))
    assert piece.id is None
    assert first[0].id != second[0].id


# -- sync, async, or both --------------------------------------------------------------------------------------


class Async(SimpleChatModel):
    """A model that streams only on an event loop."""

    async def _astream(self, messages: list[Any], **options: Any) -> AsyncIterator[str]:
        for word in ("a", "b"):
            await asyncio.sleep(0)
            yield word


class AsyncComplete(SimpleChatModel):
    """A model that answers only on an event loop, and does not stream."""

    async def _agenerate(self, messages: list[Any], **options: Any) -> str:
        await asyncio.sleep(0)
        return "ab"


@pytest.mark.parametrize("kind", [Async, AsyncComplete])
def test_asynchronous_methods_run_on_the_loop(kind: type[SimpleChatModel], tmp_path: Path) -> None:
    """Their runs are recorded like others."""
    with history_at(tmp_path) as history:
        chunks = ON_LOOP.stream(kind(callbacks=[history]), "Hi")
        assert ON_LOOP.invoke(kind(), "Hi").content == "ab"
    assert "".join(str(chunk.content) for chunk in chunks) == "ab"
    assert recorded(history.recorder.url).text == "ab"


@pytest.mark.parametrize("kind", [Async, AsyncComplete])
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_synchronous_call_of_asynchronous_methods_is_refused(kind: type[SimpleChatModel], way: str) -> None:
    """The error names `ainvoke`, and handlers receive a failed run."""
    log = Log()
    with pytest.raises(ConfigError, match="ainvoke"):
        getattr(PLAIN, way)(kind(callbacks=[log]), "Hi")
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


class All(SimpleChatModel):
    """A model whose answer is the name of the called method."""

    def _call(self, messages: list[Any], **options: Any) -> str:
        return "_call"

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        yield "_stream"

    async def _agenerate(self, messages: list[Any], **options: Any) -> str:
        return "_agenerate"

    async def _astream(self, messages: list[Any], **options: Any) -> AsyncIterator[str]:
        yield "_astream"


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        (("_call", "_stream", "_agenerate", "_astream"), ("_call", "_stream", "_agenerate", "_astream")),
        (("_call", "_stream"), ("_call", "_stream", "_call", "_stream")),
        (("_call",), ("_call", "_call", "_call", "_call")),
        (("_stream",), ("_stream", "_stream", "_stream", "_stream")),
        (("_call", "_agenerate"), ("_call", "_call", "_agenerate", "_agenerate")),
        (("_stream", "_agenerate"), ("_stream", "_stream", "_agenerate", "_stream")),
        (("_call", "_astream"), ("_call", "_call", "_call", "_astream")),
        (("_stream", "_astream"), ("_stream", "_stream", "_astream", "_astream")),
    ],
    ids=lambda names: " ".join(dict.fromkeys(names)),
)
def test_the_best_available_method_is_called(has: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """`invoke`, `stream`, `ainvoke` and `astream` call the matching method if there is one, else the nearest one."""
    kind = type("Some", (SimpleChatModel,), {name: vars(All)[name] for name in has})
    found = [str(style.invoke(kind(), "Hi").content) for style in CALL_STYLES]
    streamed = [str(style.stream(kind(), "Hi")[0].content) for style in CALL_STYLES]
    assert (found[0], streamed[0], found[1], streamed[1]) == expected


def test_a_model_without_a_method_is_refused() -> None:
    """The constructor raises an error that says which methods to write."""

    class Empty(SimpleChatModel):
        pass

    with pytest.raises(ConfigError, match="Empty has no way to answer; write _call"):
        Empty()


def test_a_synchronous_stream_runs_on_one_thread_in_the_callers_context() -> None:
    """Connections and cursors need one thread, and tracing needs the context variables."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[tuple[int, str]] = []

    class Looks(SimpleChatModel):
        def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
            try:
                for word in "abc":
                    seen.append((threading.get_ident(), user.get()))
                    yield word
            finally:
                seen.append((threading.get_ident(), user.get()))

    async def main() -> None:
        user.set("ann")
        async for _ in Looks().astream("Hi"):
            pass

    asyncio.run(main())
    ((thread, who),) = set(seen)
    assert (len(seen), who) == (4, "ann")
    assert thread != threading.get_ident()


# -- the end of a run ------------------------------------------------------------------------------------------


class RecordsItsEnd(SimpleChatModel):
    """A model that stores how its generator ended, and can fail before the last piece."""

    def __init__(self, error: BaseException | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.error = error
        self.ended: list[str] = []

    def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
        try:
            yield "Hel"
            if self.error:
                raise self.error
            yield "lo"
        except GeneratorExit:
            self.ended.append("left")
            raise
        finally:
            self.ended.append("ended")


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_errors_of_a_simple_model_are_raised_unchanged(style: CallStyle, way: str, tmp_path: Path) -> None:
    """The pieces before the error are stored."""
    log = Log()
    with history_at(tmp_path) as history:
        model = RecordsItsEnd(LookupError("no such verse"), callbacks=[history, log])
        with pytest.raises(LookupError, match="no such verse"):
            getattr(style, way)(model, "Hi")
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.run["error_type"], found.text) == ("error", "LookupError", "Hel")
    assert found.transcript == [("user", "Hi"), ("assistant", "Hel")]
    assert log.calls_of("on_llm_error")[0][1]["response"].generations[0][0].text == "Hel"
    assert model.ended == ["ended"]


@both
def test_a_stop_iteration_of_a_simple_model_is_a_runtime_error(style: CallStyle) -> None:
    """Handlers receive the error."""

    class Fails(SimpleChatModel):
        def _call(self, messages: list[Any], **options: Any) -> str:
            raise StopIteration("of a helper's own loop")

    log = Log()
    with pytest.raises(RuntimeError, match="StopIteration"):
        style.stream(Fails(callbacks=[log]), "Hi")
    assert log.names[-1] == "llm_error"


def test_closing_a_stream_closes_the_models_generator(tmp_path: Path) -> None:
    """Its `finally` has run when `close` returns, and the run is stored as cancelled."""
    with history_at(tmp_path) as history:
        plain, on_loop = RecordsItsEnd(callbacks=[history]), RecordsItsEnd(callbacks=[history])
        stream: Any = plain.stream("Hi")
        assert next(stream).content == "Hel"
        stream.close()
        assert plain.ended == ["left", "ended"]

        async def main() -> None:
            stream: Any = on_loop.astream("Hi")
            assert (await anext(stream)).content == "Hel"
            await stream.aclose()
            assert on_loop.ended == ["left", "ended"]

        asyncio.run(main())
    found = [recorded(history.recorder.url, run["id"]) for run in runs(history.recorder.url)]
    assert [(each.run["status"], each.text) for each in found] == [("cancelled", "Hel")] * 2


def test_a_cancelled_task_does_not_wait_for_the_next_piece(tmp_path: Path) -> None:
    """The thread is inside of the generator, and closes it after the next piece."""
    blocked, given, ended = threading.Event(), threading.Event(), threading.Event()

    class Blocks(SimpleChatModel):
        def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
            try:
                yield "Hel"
                blocked.set()
                assert given.wait(10)
                yield "lo"
            finally:
                ended.set()

    async def main(model: SimpleChatModel) -> None:
        task = asyncio.create_task(model.ainvoke("Hi"))
        assert await asyncio.to_thread(blocked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        given.set()

    with history_at(tmp_path) as history:
        asyncio.run(main(Blocks(callbacks=[history])))
    assert ended.wait(10)
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("cancelled", "Hel")


def test_an_error_at_closing_the_generator_of_a_cancelled_task_is_logged() -> None:
    """The task that could raise it has ended already."""
    blocked, given, logged = threading.Event(), threading.Event(), threading.Event()

    class Blocks(SimpleChatModel):
        def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
            try:
                blocked.set()
                assert given.wait(10)
                yield "Hi"
            finally:
                raise LookupError("while closing")

    async def main() -> None:
        task = asyncio.create_task(Blocks().ainvoke("Hi"))
        assert await asyncio.to_thread(blocked.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        given.set()
        await asyncio.to_thread(logged.wait, 10)

    import logging

    class Notices(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            logged.set()

    messages: list[str] = []
    notices = Notices()
    logging.getLogger("recorder").addHandler(notices)
    try:
        asyncio.run(main())
    finally:
        logging.getLogger("recorder").removeHandler(notices)
    assert "while closing" in "".join(messages)


def test_an_answer_that_never_comes_does_not_block_the_exit() -> None:
    """The caller's timeout ends the wait, and Python exits."""
    program = """
import asyncio, threading
from recorder.models import SimpleChatModel

class Never(SimpleChatModel):
    def _call(self, messages, **options):
        threading.Event().wait()

async def main():
    try:
        await asyncio.wait_for(Never().ainvoke("Hi"), 0.05)
    except TimeoutError:
        print("gave up")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "gave up\n"


def test_the_next_piece_waits_for_the_handlers(tmp_path: Path) -> None:
    """This holds with and without an event loop."""
    order: list[str] = []

    class Waits(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            order.append(f"handled {token}")

    class Says(SimpleChatModel):
        def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
            for word in "ab":
                order.append(f"made {word}")
                yield word

    for style in CALL_STYLES:
        order.clear()
        style.stream(Says(callbacks=[Waits()]), "Hi")
        assert order == ["made a", "handled a", "made b", "handled b", "handled "]


# -- names and metadata ----------------------------------------------------------------------------------------


def test_handlers_receive_the_models_name_and_metadata() -> None:
    """The name is `model_name`, else `_llm_type`, else that of the class."""

    class ChatParrot(SimpleChatModel):
        def _call(self, messages: list[Any], **options: Any) -> str:
            return "Hi"

        @property
        def _llm_type(self) -> str:
            return "parrot-chat"

    log = Log()
    ChatParrot(callbacks=[log], temperature=0.5, tags=["t"], metadata={"n": 1}).invoke(
        "Hi", seed=7, model="parrot-9"
    )
    ChatParrot(callbacks=[log]).invoke("Hi")
    first, second = [kwargs for _, kwargs in log.calls_of("on_chat_model_start")]
    assert first["metadata"] == {
        "ls_provider": "parrot", "ls_model_name": "parrot-9", "ls_model_type": "chat", "ls_temperature": 0.5, "n": 1
    }  # fmt: skip
    assert first["invocation_params"] == {"model": "parrot-9", "temperature": 0.5, "seed": 7}
    assert first["tags"] == ["t"]
    assert second["metadata"]["ls_model_name"] == "parrot-chat"
    assert first["input_hash"] != second["input_hash"]


def test_a_simple_model_has_events() -> None:
    """`astream_events` works as with other models."""

    async def main() -> list[dict[str, Any]]:
        return [event async for event in Oracle().astream_events("ab")]

    events = asyncio.run(main())
    assert events[0]["event"] == "on_chat_model_start"
    assert events[-1]["event"] == "on_chat_model_end"
    assert events[-1]["data"]["output"].content == "Yes, of course."


# -- compared with LangChain's base class ----------------------------------------------------------------------


def both_kinds(body: dict[str, Any]) -> tuple[Any, Any]:
    """Return the same class body on LangChain's base class and on ours."""
    chat_models = pytest.importorskip("langchain_core.language_models.chat_models")
    theirs = type(
        "ChatParrot", (chat_models.SimpleChatModel,), {"_llm_type": property(lambda self: "p"), **body}
    )
    return theirs(), type("ChatParrot", (SimpleChatModel,), body)()


def _call(self: Any, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
    return f"You said: {messages[-1].content}"


def _stream(self: Any, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
    outputs = pytest.importorskip("langchain_core.outputs")
    for word in ("You", " said"):
        chunk = outputs.ChatGenerationChunk(message=langchain_chunk(word))
        if run_manager:
            run_manager.on_llm_new_token(word, chunk=chunk)
        yield chunk


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize(
    "body", [{"_call": _call}, {"_call": _call, "_stream": _stream}], ids=["complete", "stream"]
)
def test_a_class_written_for_langchain_works_on_our_base_class(
    style: CallStyle, way: str, body: dict[str, Any]
) -> None:
    """The texts are the same, and each token is reported once."""
    theirs, ours = both_kinds(body)
    log = Log()
    expected = getattr(style, way)(theirs, "Hi")
    found = getattr(style, way)(ours, "Hi", {"callbacks": [log]})
    if way == "invoke":
        assert (found.content, found.type) == (expected.content, expected.type)
        assert log.tokens == []
    else:
        texts = [chunk.content for chunk in expected if chunk.content]
        assert [chunk.content for chunk in found if chunk.content] == texts
        assert [token for token in log.tokens if token] == texts
