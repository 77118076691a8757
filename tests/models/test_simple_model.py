"""`SimpleChatModel`: a subclass with one method has all methods of a model."""

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
from tests.chatting import ON_LOOP, PLAIN, ROADS, Log, Road, history_at, name_of, recorded, runs

both = pytest.mark.parametrize("road", ROADS, ids=name_of)


# -- one in thirty lines: a player of twenty questions, whole or in pieces ------------------------------------


class Oracle(SimpleChatModel):
    """Answers yes or no by the length of the question, word by word."""

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


def test_a_provider_of_one_s_own_takes_thirty_lines() -> None:
    """The class above, and the first example of docs/providers.md, which tests/test_readme.py runs."""
    page = Path(__file__).parents[2] / "docs" / "providers.md"
    _, shown, *_ = page.read_text(encoding="utf-8").split("```python\n")
    shown = shown[shown.index("class Program") : shown.index("\n\n\nwith ")]
    assert "_stream" in shown
    for source in (inspect.getsource(Oracle), shown):
        assert len(source.splitlines()) <= 30


@both
def test_it_is_a_model_like_any_other(road: Road, tmp_path: Path) -> None:
    """`invoke`, `stream`, `batch`, several at once. All runs are recorded."""
    with history_at(tmp_path) as history:
        model = Oracle(callbacks=[history])
        assert road.invoke(model, "Is it alive?").content == "Yes, of course."
        assert [chunk.content for chunk in road.stream(model, "Is it big?")] == [
            "Yes",
            ",",
            " of",
            " course",
            ".",
            "",
        ]
        assert [answer.content for answer in road.batch(model, ["ab", "abc"])] == [
            "Yes, of course.",
            "No, never.",
        ]
        result = road.generate(model, [[HumanMessage("ab")], ["abc"]])
    assert [choices[0].text for choices in result.generations] == ["Yes, of course.", "No, never."]
    assert result.llm_output["model_name"] == "oracle-1"
    url = history.recorder.url
    assert [run["status"] for run in runs(url)] == ["complete"] * 6
    assert {recorded(url, run["id"]).text for run in runs(url)} == {"Yes, of course.", "No, never."}


@both
def test_options_of_the_model_and_of_the_call(road: Road) -> None:
    """They reach the method, and `stop` with them; those of a call win."""
    model = Oracle(seed=1)
    assert road.invoke(model, "ab").content == "No, never."
    assert road.invoke(model, "ab", seed=2).content == "Yes, of course."
    assert road.invoke(model.bind(stop=["of"]), "ab", seed=2).content == "Yes,"
    assert road.invoke(model, "ab", stop=["never"]).content == "No,"


# -- only a whole answer ---------------------------------------------------------------------------------------


class Echo(SimpleChatModel):
    """A model with one method, without options. It cannot stream."""

    def _call(self, messages: list[Any], **options: Any) -> str:
        return f"You said: {messages[-1].text}"


@both
def test_a_model_that_cannot_stream_streams_one_chunk(road: Road) -> None:
    """And LangChain's empty last chunk, as all models. Handlers get the token."""
    log = Log()
    first, last = road.stream(Echo(callbacks=[log]), "Hi")
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
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
def test_invoke_reports_tokens_with_streaming(road: Road, streaming: bool) -> None:
    """As the other models."""
    log = Log()
    answer = road.invoke(Echo(callbacks=[log], streaming=streaming), "Hi")
    assert type(answer) is AIMessage
    assert "".join(log.tokens) == ("You said: Hi" if streaming else "")


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_everything_is_recorded_but_frames(road: Road, way: str, tmp_path: Path) -> None:
    """Messages, the token with its time, the names. There is no wire format."""
    with history_at(tmp_path) as history:
        getattr(road, way)(
            Echo(callbacks=[history], name="parrot"), [SystemMessage("Be brief."), ("user", "Hi")]
        )
    found = recorded(history.recorder.url)
    assert found.transcript == [("system", "Be brief."), ("user", "Hi"), ("assistant", "You said: Hi")]
    assert list(found.tokens.texts.values()) == ["You said: Hi"]
    assert found.body == b""
    run = found.run
    assert (run["operation"], run["status"], run["wire"]) == ("chat", "complete", None)
    assert (run["provider_name"], run["request_model"], run["frames_sha256"]) == ("echo", "Echo", None)


def test_an_event_loop_goes_on_while_the_model_answers() -> None:
    """A method that is not `async` runs on a thread. Here it even waits for the loop."""
    heard = threading.Event()

    class Slow(SimpleChatModel):
        def _call(self, messages: list[Any], **options: Any) -> str:
            assert heard.wait(10)
            return "done"

    async def main() -> str:
        task = asyncio.create_task(Slow().ainvoke("Hi"))
        await asyncio.sleep(0)
        heard.set()
        return str((await task).content)

    assert asyncio.run(main()) == "done"


# -- what an answer may be -------------------------------------------------------------------------------------

CALL = {"name": "weather", "args": {"city": "Zürich"}, "id": "call_1", "type": "tool_call"}
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def message() -> AIMessage:
    """A message with all fields."""
    return AIMessage(
        "Hi", tool_calls=[CALL], usage_metadata=USAGE, additional_kwargs={"reasoning_content": "Hm"},  # type: ignore[arg-type]
        response_metadata={"finish_reason": "stop", "model_name": "echo-2"},
    )  # fmt: skip


def langchain_result() -> Any:
    """LangChain's own objects."""
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
    """A model whose `_generate` returns this answer, or whose `_stream` yields these."""

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
def test_the_types_of_a_complete_answer(
    road: Road, way: str, made: Callable[[], Any], tmp_path: Path
) -> None:
    """A message, a generation, a result: text, reasoning, calls, usage and finish come through and are recorded."""
    with history_at(tmp_path) as history:
        result = getattr(road, way)(answering(made(), callbacks=[history]), "Hi")
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
    """LangChain's own chunk."""
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
def test_the_types_of_a_piece(road: Road, made: Callable[[str], Any]) -> None:
    """Each becomes a chunk with the run's id, and the answer is their sum."""
    chunks = road.stream(answering(made("Hel"), made("lo")), "Hi")
    assert [chunk.content for chunk in chunks] == ["Hel", "lo", ""]
    assert {type(chunk) for chunk in chunks} == {AIMessageChunk}
    assert len({chunk.id for chunk in chunks}) == 1
    assert road.invoke(answering(made("Hel"), made("lo")), "Hi").content == "Hello"


@both
def test_calls_in_pieces(road: Road, tmp_path: Path) -> None:
    """As chunks have them. The deltas have the kinds of tool calls."""
    opened = {"name": "weather", "args": "", "id": "call_1", "index": 0, "type": "tool_call_chunk"}
    rest = {"name": None, "args": '{"city": "Bern"}', "id": None, "index": 0, "type": "tool_call_chunk"}
    pieces = [AIMessageChunk("", tool_call_chunks=[call]) for call in (opened, rest)]  # type: ignore[list-item]
    pieces.append(AIMessageChunk("", additional_kwargs={"refusal": "No."}, usage_metadata=USAGE))  # type: ignore[arg-type]
    with history_at(tmp_path) as history:
        answer = road.invoke(answering(*pieces, callbacks=[history]), "Weather?")
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
def test_what_is_no_answer_is_refused(road: Road, way: str, odd: Any, tmp_path: Path) -> None:
    """For example a forgotten `return`. The error says what to return; the pieces before it are stored."""
    with history_at(tmp_path) as history:
        for model in (answering(odd, callbacks=[history]), answering("Hel", odd, callbacks=[history])):
            with pytest.raises(ConfigError, match="return or yield a str"):
                getattr(road, way)(model, "Hi")
    first, second = runs(history.recorder.url)
    assert (first["status"], second["status"]) == ("error", "error")
    assert recorded(history.recorder.url, second["id"]).text == "Hel"


@both
def test_no_piece_at_all(road: Road) -> None:
    """The answer is empty."""
    model = answering("", "")
    assert road.invoke(model, "Hi").content == ""
    assert [chunk.content for chunk in road.stream(model, "Hi")] == ["", "", ""]


def test_a_chunk_with_the_last_position_is_the_last() -> None:
    """No empty chunk follows it."""
    chunks = list(answering("Hel", AIMessageChunk("lo", chunk_position="last")).stream("Hi"))
    assert [chunk.content for chunk in chunks] == ["Hel", "lo"]


def test_the_pieces_of_a_model_are_not_changed() -> None:
    """A piece that is yielded again has nothing of the run before."""
    piece = AIMessageChunk("Hi")
    model = answering(piece, piece)
    first, second = list(model.stream("Hi")), list(model.stream("Hi"))
    assert piece.id is None
    assert first[0].id != second[0].id


# -- sync, async, or both --------------------------------------------------------------------------------------


class Async(SimpleChatModel):
    """Answers only on an event loop."""

    async def _astream(self, messages: list[Any], **options: Any) -> AsyncIterator[str]:
        for word in ("a", "b"):
            await asyncio.sleep(0)
            yield word


class AsyncWhole(SimpleChatModel):
    """The same without streaming."""

    async def _agenerate(self, messages: list[Any], **options: Any) -> str:
        await asyncio.sleep(0)
        return "ab"


@pytest.mark.parametrize("kind", [Async, AsyncWhole])
def test_asynchronous_methods_run_on_the_loop(kind: type[SimpleChatModel], tmp_path: Path) -> None:
    """And are recorded like the others."""
    with history_at(tmp_path) as history:
        chunks = ON_LOOP.stream(kind(callbacks=[history]), "Hi")
        assert ON_LOOP.invoke(kind(), "Hi").content == "ab"
    assert "".join(str(chunk.content) for chunk in chunks) == "ab"
    assert recorded(history.recorder.url).text == "ab"


@pytest.mark.parametrize("kind", [Async, AsyncWhole])
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_without_a_loop_the_error_says_what_to_call(kind: type[SimpleChatModel], way: str) -> None:
    """Handlers get a run that failed."""
    log = Log()
    with pytest.raises(ConfigError, match="ainvoke"):
        getattr(PLAIN, way)(kind(callbacks=[log]), "Hi")
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


class All(SimpleChatModel):
    """Says which of its methods was called."""

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
def test_which_method_is_called(has: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """For `invoke`, `stream`, `ainvoke` and `astream`: the matching method, else the nearest one."""
    kind = type("Some", (SimpleChatModel,), {name: vars(All)[name] for name in has})
    found = [str(road.invoke(kind(), "Hi").content) for road in ROADS]
    streamed = [str(road.stream(kind(), "Hi")[0].content) for road in ROADS]
    assert (found[0], streamed[0], found[1], streamed[1]) == expected


def test_a_model_without_a_method_is_refused() -> None:
    """The constructor raises and says which methods to write."""

    class Empty(SimpleChatModel):
        pass

    with pytest.raises(ConfigError, match="Empty has no way to answer; write _call"):
        Empty()


def test_pieces_are_made_on_one_thread_in_the_caller_s_context() -> None:
    """Connections and cursors need the one thread, tracing needs the context."""
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


# -- how it ends -----------------------------------------------------------------------------------------------


class Ends(SimpleChatModel):
    """Notes its end, and can fail before the last piece."""

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
def test_its_errors_are_raised_as_they_are(road: Road, way: str, tmp_path: Path) -> None:
    """The pieces before the error are stored."""
    log = Log()
    with history_at(tmp_path) as history:
        model = Ends(LookupError("no such verse"), callbacks=[history, log])
        with pytest.raises(LookupError, match="no such verse"):
            getattr(road, way)(model, "Hi")
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.run["error_type"], found.text) == ("error", "LookupError", "Hel")
    assert found.transcript == [("user", "Hi"), ("assistant", "Hel")]
    assert log.calls_of("on_llm_error")[0][1]["response"].generations[0][0].text == "Hel"
    assert model.ended == ["ended"]


@both
def test_errors_of_generate(road: Road) -> None:
    """Without any piece."""

    class Fails(SimpleChatModel):
        def _call(self, messages: list[Any], **options: Any) -> str:
            raise StopIteration("of a helper's own loop")

    log = Log()
    with pytest.raises(RuntimeError, match="StopIteration"):
        road.stream(Fails(callbacks=[log]), "Hi")
    assert log.names[-1] == "llm_error"


def test_leaving_the_loop_closes_its_generator(tmp_path: Path) -> None:
    """Its `finally` has run when the caller goes on; the run is cancelled, and what came is kept."""
    with history_at(tmp_path) as history:
        plain, on_loop = Ends(callbacks=[history]), Ends(callbacks=[history])
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
    """The thread is in the middle of it, and closes the generator after it."""
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


def test_an_error_of_a_late_close_is_logged() -> None:
    """The task that would raise it was cancelled before."""
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
    """The caller gives up, and Python ends."""
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


def test_handlers_are_waited_for(tmp_path: Path) -> None:
    """The next piece waits for the awaitable of a handler, with and without a loop."""
    order: list[str] = []

    class Waits(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            order.append(f"told {token}")

    class Says(SimpleChatModel):
        def _stream(self, messages: list[Any], **options: Any) -> Iterator[str]:
            for word in "ab":
                order.append(f"made {word}")
                yield word

    for road in ROADS:
        order.clear()
        road.stream(Says(callbacks=[Waits()]), "Hi")
        assert order == ["made a", "told a", "made b", "told b", "told "]


# -- what is said of it ----------------------------------------------------------------------------------------


def test_the_model_s_name_and_metadata_for_handlers() -> None:
    """LangChain's metadata; the model's name is `model_name`, else `_llm_type`, else the class's."""

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


def test_events_of_a_model_of_one_s_own() -> None:
    """`astream_events`, as with the others."""

    async def main() -> list[dict[str, Any]]:
        return [event async for event in Oracle().astream_events("ab")]

    events = asyncio.run(main())
    assert events[0]["event"] == "on_chat_model_start"
    assert events[-1]["event"] == "on_chat_model_end"
    assert events[-1]["data"]["output"].content == "Yes, of course."


# -- beside LangChain's base class -----------------------------------------------------------------------------


def both_kinds(body: dict[str, Any]) -> tuple[Any, Any]:
    """The same class body on LangChain's base class and on ours."""
    chat_models = pytest.importorskip("langchain_core.language_models.bases")
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
    "body", [{"_call": _call}, {"_call": _call, "_stream": _stream}], ids=["whole", "stream"]
)
def test_a_class_written_for_langchain_answers_alike(road: Road, way: str, body: dict[str, Any]) -> None:
    """With the other base class: the same texts, and each token is reported once."""
    theirs, ours = both_kinds(body)
    log = Log()
    expected = getattr(road, way)(theirs, "Hi")
    found = getattr(road, way)(ours, "Hi", {"callbacks": [log]})
    if way == "invoke":
        assert (found.content, found.type) == (expected.content, expected.type)
        assert log.tokens == []
    else:
        texts = [chunk.content for chunk in expected if chunk.content]
        assert [chunk.content for chunk in found if chunk.content] == texts
        assert [token for token in log.tokens if token] == texts
