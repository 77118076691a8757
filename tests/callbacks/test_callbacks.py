"""Callback handlers of every kind receive the events of a run, and a failing handler does not break the run."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import os
import sqlite3
import sys
import threading
import uuid
from typing import Any
from unittest.mock import MagicMock

import pytest

from recorder.callbacks import (
    AsyncIteratorCallbackHandler,
    BaseCallbackHandler,
    CallbackHandler,
    Dispatch,
    StreamingStdOutCallbackHandler,
    failures,
    handlers_from,
    settle,
    settle_now,
)
from recorder.callbacks.dispatch import buffer_string
from recorder.core.waitable import Wait
from recorder.errors import ConfigError, RecorderError
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatGenerationChunk,
    HumanMessage,
    LLMResult,
    SystemMessage,
    ToolMessage,
)
from recorder.wire.deltas import Delta
from tests.oracle import run_python

RUN = uuid.uuid4()
PARENT = uuid.uuid4()
CHUNK = ChatGenerationChunk(AIMessageChunk("Hi"))
RESULT = LLMResult([])


def dispatch(*handlers: Any) -> Dispatch:
    """Return a `Dispatch` of one run to these handlers."""
    return Dispatch(handlers, run_id=RUN, parent_run_id=PARENT, tags=["t"], metadata={"m": 1})


def all_events(run: Dispatch) -> None:
    """Send one event of each kind."""
    run.chat_model_start({"name": "m"}, [HumanMessage("Hello")], options=None)
    run.new_message(HumanMessage("Hello"))
    run.stream_frame(b"data: 1\n\n", 5, [Delta("Hi")])
    run.new_token("Hi", CHUNK)
    run.llm_end(RESULT)
    run.llm_error(ValueError("x"), RESULT)


class Recording(BaseCallbackHandler):
    """A handler that stores every event it receives."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.received.append(("start", serialized, messages, kwargs))

    def on_chat_new_message(self, message: BaseMessage) -> None:
        self.received.append(("message", message))

    def on_stream_frame(self, frame: bytes, at_us: int, deltas: Any, *, run_id: uuid.UUID) -> None:
        self.received.append(("frame", frame, at_us, deltas, run_id))

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.received.append(("token", token, kwargs))

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.received.append(("end", response, kwargs))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.received.append(("error", str(error), kwargs))


def test_a_handler_receives_every_event_with_langchains_arguments() -> None:
    """Run ids are UUIDs, messages are a list of lists, and metadata come only with the start."""
    handler = Recording()
    all_events(Dispatch([handler], run_id=str(RUN), parent_run_id=PARENT, tags=["t"], metadata={"m": 1}))
    common = {"run_id": RUN, "parent_run_id": PARENT, "tags": ["t"]}
    assert handler.received == [
        (
            "start",
            {"name": "m"},
            [[HumanMessage("Hello")]],
            {**common, "metadata": {"m": 1}, "options": None},
        ),
        ("message", HumanMessage("Hello")),
        ("frame", b"data: 1\n\n", 5, [Delta("Hi")], RUN),
        ("token", "Hi", {**common, "chunk": CHUNK}),
        ("end", RESULT, common),
        ("error", "x", {**common, "response": RESULT}),
    ]


def test_methods_that_a_handler_does_not_override_are_not_called() -> None:
    """A run knows whether any handler wants its tokens or its frames."""
    silent = dispatch(BaseCallbackHandler(), CallbackHandler())
    assert (silent.wants_frames, silent.wants_tokens) == (False, False)
    assert silent.new_token("x", CHUNK) is None

    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None: ...

    assert (dispatch(Tokens()).wants_frames, dispatch(Tokens()).wants_tokens) == (False, True)
    assert dispatch(Recording()).wants_frames


def test_a_handler_without_keyword_arguments_receives_messages() -> None:
    """The handler of LangChain's documentation has no **kwargs and does not call super().__init__()."""

    class ChatHistoryCallback(CallbackHandler):
        def __init__(self) -> None:
            self.conn = sqlite3.connect(":memory:")
            self.c = self.conn.cursor()
            self.c.execute("CREATE TABLE chathistory (id INTEGER PRIMARY KEY, role TEXT, content TEXT)")

        def on_chat_new_message(self, message: BaseMessage) -> None:
            self.c.execute("INSERT INTO chathistory VALUES (NULL, ?, ?)", (message.role, message.content))
            self.conn.commit()

    handler = ChatHistoryCallback()
    run = dispatch(handler)
    for message in (HumanMessage("Hello!"), AIMessage("Hi.")):
        assert run.new_message(message) is None
    rows = handler.c.execute("SELECT * FROM chathistory").fetchall()
    handler.conn.close()
    assert rows == [(1, "user", "Hello!"), (2, "assistant", "Hi.")]
    assert failures(handler) == {}


def test_any_object_with_the_methods_is_a_handler() -> None:
    """An object with the methods on its class or on the instance is a handler, and so is a mock."""

    class Duck:
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            received.append(token)

    received: list[str] = []
    duck: Any = Duck()
    duck.on_llm_end = lambda response, **kwargs: received.append("end")
    mock = MagicMock(spec=BaseCallbackHandler)
    all_events(dispatch(*handlers_from([duck, mock])))
    assert received == ["Hi", "end"]
    mock.on_llm_new_token.assert_called_once_with(
        "Hi", chunk=CHUNK, run_id=RUN, parent_run_id=PARENT, tags=["t"]
    )


def test_langchains_handlers_work() -> None:
    """Their empty methods are not called; without `on_chat_model_start` a handler receives the prompt as text."""
    base = pytest.importorskip("langchain_core.callbacks")
    received: list[Any] = []

    class Prompts(base.BaseCallbackHandler):  # type: ignore[misc, name-defined]
        def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
            received.append((prompts, kwargs["run_id"], kwargs["metadata"]))

    class Refuses(Prompts):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            raise NotImplementedError

    class RefusesLater(Prompts):
        async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            raise NotImplementedError

    class Ignores(Prompts):
        ignore_llm = True

    class IgnoresChat(Prompts):
        ignore_chat_model = True

    for handler in (Prompts(), Refuses(), RefusesLater(), Ignores(), IgnoresChat()):
        run = dispatch(handler)
        assert not run.wants_tokens
        settle_now(run.chat_model_start({}, [SystemMessage("s"), HumanMessage("Hello")]) or [])
        assert failures(handler) == {}
    assert received == [(["System: s\nHuman: Hello"], RUN, {"m": 1})] * 3
    stdout = base.StreamingStdOutCallbackHandler()
    all_events(dispatch(stdout))
    assert failures(stdout) == {}
    manager = base.CallbackManager(handlers=[stdout])
    assert handlers_from(manager) == [stdout]


def test_messages_become_the_same_text_as_in_langchain() -> None:
    """`buffer_string` returns what `get_buffer_string` returns, also for tool calls and blocks."""
    langchain = pytest.importorskip("langchain_core.messages")
    call = {"name": "f", "args": {"a": 1}, "id": "1", "type": "tool_call"}
    ours = [
        SystemMessage("s"),
        HumanMessage([{"type": "text", "text": "a"}]),
        AIMessage("b", tool_calls=[call]),
    ]
    theirs = [
        langchain.SystemMessage("s"),
        langchain.HumanMessage([{"type": "text", "text": "a"}]),
        langchain.AIMessage("b", tool_calls=[call]),
        langchain.ToolMessage("c", tool_call_id="1"),
    ]
    assert buffer_string([*ours, ToolMessage("c", "1")]) == langchain.get_buffer_string(theirs)


def test_completion_models_start_with_their_prompts() -> None:
    """A completion model calls `on_llm_start` and not `on_chat_model_start`."""
    handler = MagicMock(spec=BaseCallbackHandler)
    dispatch(handler).llm_start({"name": "m"}, ["Hello"])
    handler.on_llm_start.assert_called_once_with(
        {"name": "m"}, ["Hello"], run_id=RUN, parent_run_id=PARENT, tags=["t"], metadata={"m": 1}
    )
    handler.on_chat_model_start.assert_not_called()


class Broken(BaseCallbackHandler):
    """A handler that raises at each token."""

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise LookupError(token)


class BrokenWhenAwaited(BaseCallbackHandler):
    """A handler whose coroutine raises at each token."""

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise LookupError(token)


@pytest.mark.parametrize("kind", [Broken, BrokenWhenAwaited])
def test_a_failing_handler_is_logged_once_and_the_others_go_on(
    kind: type[BaseCallbackHandler], caplog: pytest.LogCaptureFixture
) -> None:
    """The first failure is logged with a traceback, later ones are counted, and the other handlers get every event."""
    broken, sound = kind(), Recording()
    for run in (dispatch(broken, sound), dispatch(broken, sound)):
        settle_now(run.new_token("a") or [])
        asyncio.run(settle(run.new_token("b") or []))
    assert [each[1] for each in sound.received] == ["a", "b", "a", "b"]
    assert failures(broken) == {"on_llm_new_token": 4}
    assert [record.name for record in caplog.records] == ["recorder"]
    assert f"{kind.__name__}.on_llm_new_token raised LookupError('a')" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("kind", [Broken, BrokenWhenAwaited])
def test_a_handler_with_raise_error_ends_the_call(kind: type[BaseCallbackHandler]) -> None:
    """The exception of a handler with `raise_error = True` is raised, and other coroutines are closed."""

    class Slow(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None: ...

    handler = kind()
    handler.raise_error = True
    for wait in (settle_now, lambda pending: asyncio.run(settle(pending))):
        run = dispatch(Slow(), handler, Slow())
        with pytest.raises(LookupError):
            wait(run.new_token("a") or [])
    assert failures(handler) == {}


def test_failures_are_counted_for_each_handler(caplog: pytest.LogCaptureFixture) -> None:
    """A new handler starts at zero; handlers without weak references are counted together by their class."""

    class Slotted:
        __slots__ = ()

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise LookupError

    caplog.set_level(logging.CRITICAL, "recorder")  # a logged traceback would hold a reference to the handler
    for _ in range(3):
        broken = Broken()
        dispatch(broken).new_token("a")
        assert failures(broken) == {"on_llm_new_token": 1}
        del broken
    dispatch(Slotted(), Slotted()).new_token("a")
    assert failures(Slotted()) == {"on_llm_new_token": 2}


def test_a_keyboard_interrupt_in_a_handler_is_raised() -> None:
    """KeyboardInterrupt is not counted as a handler's failure."""

    class Interrupted(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dispatch(Interrupted()).new_token("a")


def test_only_awaitables_of_handlers_are_returned() -> None:
    """A `Wait` and a coroutine are returned in the order of the handlers; other return values are dropped."""
    wait: Wait[None] = Wait()

    class Returns(BaseCallbackHandler):
        def __init__(self, thing: Any) -> None:
            self.thing = thing

        def on_llm_new_token(self, token: str, **kwargs: Any) -> Any:
            return self.thing

    assert dispatch(*map(Returns, (None, 0, "rubbish", object(), [1]))).new_token("a") is None
    coroutine = asyncio.sleep(0)
    pending = dispatch(*map(Returns, ("rubbish", wait, coroutine))).new_token("a")
    assert [each.thing for each in pending or []] == [wait, coroutine]
    wait.set(None)
    settle_now(pending or [])


class RecordingWait(Wait[None]):
    """A `Wait` that stores the timeouts, in seconds, with which it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float] = []

    def wait(self, timeout: float | None = None) -> None:
        if timeout is not None:
            self.timeouts.append(timeout)
        super().wait(timeout)


class WaitingHandler(BaseCallbackHandler):
    """A handler that returns a `Wait` at each token."""

    def __init__(self) -> None:
        self.wait = RecordingWait()

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Wait[None]:
        return self.wait


def test_settling_waits_until_another_thread_ends_the_wait() -> None:
    """Both the synchronous and the asynchronous form return only when the `Wait` is done."""
    for settle_it in (settle_now, lambda pending: asyncio.run(settle(pending))):
        handler = WaitingHandler()
        pending = dispatch(handler).new_token("a")
        assert pending is not None
        other = threading.Thread(target=handler.wait.set, args=[None])
        other.start()
        settle_it(pending)
        assert handler.wait.done
        other.join()


def test_a_wait_that_takes_too_long_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The application continues after the timeout, which holds for all waits of an event together."""
    handler = WaitingHandler()
    run = dispatch(handler, handler)
    for _ in range(2):
        settle_now(run.new_token("a") or [], timeout=0.05)
    assert all(sum(each) <= 0.05 for each in zip(*[iter(handler.wait.timeouts)] * 2, strict=True))
    assert failures(handler) == {"on_llm_new_token": 4}
    assert len(caplog.records) == 1


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    """The timeout holds for an asynchronous handler, too."""

    class Hangs(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.Event().wait()

    handler = Hangs()
    settle_now(dispatch(handler).new_token("a") or [], timeout=0.01)
    assert failures(handler) == {"on_llm_new_token": 1}


class LoopRecorder(BaseCallbackHandler):
    """A handler that stores the loop, the thread and a context variable of each call."""

    def __init__(self) -> None:
        self.places: list[tuple[Any, int, str]] = []

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.places.append((asyncio.get_running_loop(), threading.get_ident(), VARIABLE.get()))


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def test_synchronous_code_runs_async_handlers_on_one_loop_of_its_thread() -> None:
    """All calls use the same loop, and the caller's context variables are visible."""
    handler = LoopRecorder()
    run = dispatch(handler)
    token = VARIABLE.set("mine")
    for _ in range(2):
        settle_now(run.new_token("a") or [])
    VARIABLE.reset(token)
    assert [each[1:] for each in handler.places] == [(threading.get_ident(), "mine")] * 2
    assert handler.places[0][0] is handler.places[1][0]


def test_synchronous_code_on_a_running_loop_runs_async_handlers_on_another_thread() -> None:
    """All calls use the same other loop, and the caller's context variables are visible."""
    handler = LoopRecorder()
    run = dispatch(handler)

    async def main() -> None:
        VARIABLE.set("main")
        for _ in range(2):
            settle_now(run.new_token("a") or [])

    asyncio.run(main())
    loops, threads, values = zip(*handler.places, strict=True)
    assert (len(set(loops)), len(set(threads)), set(values)) == (1, 1, {"main"})
    assert threads[0] != threading.get_ident()


def test_an_async_handler_may_call_a_synchronous_model() -> None:
    """`settle_now` inside of `settle_now` does not block."""
    inner = LoopRecorder()

    class Outer(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            settle_now(dispatch(inner).new_token(token) or [])

    outer = Outer()

    async def main() -> None:
        settle_now(dispatch(outer).new_token("a") or [])

    asyncio.run(main())
    settle_now(dispatch(outer).new_token("b") or [])
    assert (len(inner.places), failures(outer)) == (2, {})


def test_a_threads_private_loop_is_closed_when_the_thread_ends() -> None:
    """An unclosed loop would raise a warning, which is an error here."""
    handler = LoopRecorder()
    threads = [
        threading.Thread(target=lambda: settle_now(dispatch(handler).new_token("a") or [])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
        thread.join()
    assert [loop.is_closed() for loop, _, _ in handler.places] == [True] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_async_handlers_run_in_a_forked_child() -> None:
    """The child makes a new loop, and the parent continues to use its own."""
    handler = LoopRecorder()
    run = dispatch(handler)
    settle_now(run.new_token("a") or [])
    child = os.fork()
    if child == 0:
        settle_now(run.new_token("b") or [], timeout=5)
        os._exit(0 if len(handler.places) == 2 and handler.places[0][0] is not handler.places[1][0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    settle_now(run.new_token("c") or [])
    assert handler.places[0][0] is handler.places[1][0]


def test_a_forked_child_ends_without_closing_the_parents_loop() -> None:
    """After the child's end the parent's epoll list, which both processes share, is unchanged."""
    done = run_python(
        """
import os, sys, uuid, warnings
from pathlib import Path
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # for Python 3.12: forks beside threads
from recorder.callbacks import BaseCallbackHandler, Dispatch
from recorder.callbacks.handler_results import settle_now

def watched():
    lists = [entry.read_text() for entry in Path("/proc/self/fdinfo").iterdir() if entry.exists()]
    return sorted(line for found in lists for line in found.split("\\n") if line.startswith("tfd:"))

class Handler(BaseCallbackHandler):
    async def on_llm_new_token(self, token, **more):
        pass

run = Dispatch([Handler()], run_id=uuid.uuid4(), parent_run_id=None, tags=[], metadata={})
settle_now(run.new_token("a"))
before = watched()
if not (child := os.fork()):
    settle_now(run.new_token("b"))
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(len(before), watched() == before)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 True\n", "")


def test_cancelling_the_application_is_not_a_handlers_failure() -> None:
    """The cancellation is raised, the remaining coroutines are closed, and no failure is counted."""

    class Hangs(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.Event().wait()

    handler = Hangs()

    async def main() -> None:
        task = asyncio.create_task(settle(dispatch(handler, handler).new_token("a") or []))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert failures(handler) == {}


def test_a_handler_that_cancels_itself_does_not_cancel_the_application() -> None:
    """A CancelledError that a handler raises is counted as its failure."""

    class Cancels(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise asyncio.CancelledError

    handler = Cancels()
    asyncio.run(settle(dispatch(handler).new_token("a") or []))
    settle_now(dispatch(handler).new_token("a") or [])
    assert failures(handler) == {"on_llm_new_token": 2}


def test_callbacks_may_be_none_one_or_several_and_count_once_each() -> None:
    """A handler that is given twice is called once."""
    one, two = Recording(), Broken()
    assert handlers_from(None) == handlers_from([]) == []
    assert handlers_from(one) == [one]
    assert handlers_from((one, two, one)) == [one, two]


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (Recording, r"the class Recording .* pass Recording\(\.\.\.\)"),
        ([BaseCallbackHandler], "the class BaseCallbackHandler"),
        ("stdout", "got str 'stdout', which is not a handler: it has none of on_chat_model_start"),
        ([None], "got NoneType None"),
    ],
)
def test_an_invalid_handler_is_refused_with_the_remedy(callbacks: Any, message: str) -> None:
    """The error names the object and what to pass; the most frequent mistake is a class instead of an instance."""
    with pytest.raises(ConfigError, match=message):
        handlers_from(callbacks)


def test_the_stdout_handler_writes_to_the_current_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """It looks up `sys.stdout` at each token, so that a later redirection takes effect."""
    run = dispatch(StreamingStdOutCallbackHandler())
    for token in ("Verse ", "", "1\n"):
        run.new_token(token)
    assert capsys.readouterr().out == "Verse 1\n"


def test_an_empty_token_is_not_written_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens of a tool call are empty."""
    monkeypatch.setattr(sys, "stdout", out := MagicMock())
    dispatch(StreamingStdOutCallbackHandler()).new_token("", CHUNK)
    assert out.mock_calls == []


class AsciiOutput(io.TextIOWrapper):
    """A text output that can encode only ASCII."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")

    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_terminal_that_cannot_show_a_character_gets_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the output cannot encode are written as escapes, also half of a surrogate pair."""
    monkeypatch.setattr(sys, "stdout", narrow := AsciiOutput())
    run = dispatch(StreamingStdOutCallbackHandler())
    for token in ("a", "é", "\ud800"):
        run.new_token(token)
    assert narrow.written() == b"a\\xe9\\ud800"


@pytest.mark.parametrize("gone", ["closed", "missing"])
def test_a_standard_output_that_is_gone_does_not_end_the_stream(
    gone: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A closed or missing `sys.stdout` is logged once and raises nothing, even with `raise_error`."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed if gone == "closed" else None)
    handler = StreamingStdOutCallbackHandler()
    handler.raise_error = True
    for _ in range(3):
        assert dispatch(handler).new_token("a") is None
    assert [record.getMessage() for record in caplog.records] == [
        "Cannot write tokens to standard output; the stream continues without output"
    ]


def start(handler: AsyncIteratorCallbackHandler) -> Dispatch:
    """Start a run of this handler."""
    run = dispatch(handler)
    run.chat_model_start({}, [])
    return run


async def read(handler: AsyncIteratorCallbackHandler) -> list[str]:
    """Return all tokens of one iteration."""
    return [token async for token in handler.aiter()]


async def read_into(tokens: list[str], handler: AsyncIteratorCallbackHandler) -> None:
    """Append the tokens of one iteration to a list, so that those before an error can be checked."""
    async for token in handler.aiter():
        tokens.append(token)


async def produce(run: Dispatch, tokens: list[str]) -> None:
    """Send tokens and the end to a run, as an asynchronous model does."""
    for token in tokens:
        await asyncio.sleep(0)
        await settle(run.new_token(token) or [])
    await settle(run.llm_end(RESULT) or [])


def test_tokens_are_iterated_while_the_model_runs_in_a_task() -> None:
    """A task calls the model, and a loop iterates its tokens; empty tokens are skipped."""

    async def main() -> list[str]:
        handler = AsyncIteratorCallbackHandler()

        async def call() -> None:
            try:
                await produce(start(handler), ["a", "", "b", "c"])
            finally:
                handler.done.set()

        task = asyncio.create_task(call())
        tokens = await read(handler)
        await task
        assert isinstance(handler.done, asyncio.Event)
        assert handler.done.is_set()
        return tokens

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_one_handler_can_be_used_for_several_runs_and_loops() -> None:
    """The handler is made outside of any loop, and an iteration may begin before its run does."""
    handler = AsyncIteratorCallbackHandler()

    async def main(tokens: list[str]) -> list[str]:
        async def call() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            await produce(start(handler), tokens)
            handler.done.set()

        task = asyncio.create_task(call())
        read_tokens = await read(handler)
        await task
        return read_tokens

    assert [asyncio.run(main([each])) for each in "abc"] == [["a"], ["b"], ["c"]]


def test_tokens_from_another_thread_wake_the_reader() -> None:
    """A synchronous model runs in a worker thread, and `done` can be awaited at the same time."""
    handler = AsyncIteratorCallbackHandler()

    def call() -> None:
        run = start(handler)
        for token in map(str, range(100)):
            settle_now(run.new_token(token) or [])
        run.llm_end(RESULT)

    async def main() -> list[str]:
        _, tokens, over = await asyncio.gather(asyncio.to_thread(call), read(handler), handler.done.wait())
        assert over is True
        return tokens

    assert asyncio.run(main()) == [str(number) for number in range(100)]


def test_a_producer_waits_for_a_slow_reader() -> None:
    """The producer is never more than the limit ahead of the reader."""
    handler = AsyncIteratorCallbackHandler(limit=4)

    async def main() -> tuple[list[str], int]:
        ahead = produced = 0

        async def call() -> None:
            nonlocal produced
            run = start(handler)
            for number in range(50):
                await settle(run.new_token(str(number)) or [])
                produced += 1
            run.llm_end(RESULT)

        tokens = []
        reading = handler.aiter()
        task = asyncio.create_task(call())
        async for token in reading:
            tokens.append(token)
            for _ in range(5):
                await asyncio.sleep(0)
            ahead = max(ahead, produced - len(tokens))
        await task
        return tokens, ahead

    tokens, ahead = asyncio.run(main())
    assert tokens == [str(number) for number in range(50)]
    assert 0 < ahead <= 4


def test_iterating_after_the_call_does_not_block() -> None:
    """Tokens up to the limit are held for a later `aiter()`, and the call does not wait."""
    handler = AsyncIteratorCallbackHandler(limit=3)

    async def main() -> list[str]:
        await produce(start(handler), ["a", "b", "c"])
        return await read(handler)

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_a_reader_gets_an_error_where_tokens_were_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """The call ends normally; the reader gets the held tokens, then an error; one warning is logged."""
    handler = AsyncIteratorCallbackHandler(limit=3)

    async def main() -> list[str]:
        await produce(start(handler), list("abcdef"))
        tokens: list[str] = []
        with pytest.raises(RecorderError, match=r"3 tokens are missing here\..*another task.*limit="):
            await read_into(tokens, handler)
        return tokens

    assert asyncio.run(main()) == ["a", "b", "c"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_tokens_beyond_twice_the_limit_are_dropped() -> None:
    """A producer that ignores the returned `Wait` cannot fill the memory, even while a reader iterates."""
    handler = AsyncIteratorCallbackHandler(limit=3)

    async def main() -> list[str]:
        run = start(handler)
        tokens: list[str] = []
        reading = asyncio.create_task(read_into(tokens, handler))
        await asyncio.sleep(0)
        for number in range(100):
            run.new_token(str(number))
        with pytest.raises(RecorderError, match="94 tokens are missing"):
            await reading
        return tokens

    assert asyncio.run(main()) == [str(number) for number in range(6)]


def test_a_model_on_the_readers_own_task_does_not_wait() -> None:
    """A synchronous model on the reader's loop, and a call inside of the reader's loop body, do not block."""
    handler = AsyncIteratorCallbackHandler(limit=2)

    async def main() -> list[str]:
        tokens = []
        run = start(handler)
        run.new_token("a")
        async for token in handler.aiter():
            tokens.append(token)
            if token == "a":
                settle_now([each for text in "bcd" for each in run.new_token(text) or []])
            if token == "d":
                for text in "efg":
                    await settle(run.new_token(text) or [])
                run.llm_end(RESULT)
        return tokens

    assert asyncio.run(main()) == list("abcdefg")


def test_a_failing_model_ends_the_iteration() -> None:
    """The tokens before the failure are yielded; the error itself is raised where the model was called."""
    handler = AsyncIteratorCallbackHandler()

    async def main() -> list[str]:
        run = start(handler)
        run.new_token("a")
        run.llm_error(ValueError("boom"))
        return await read(handler)

    assert asyncio.run(main()) == ["a"]


def test_setting_done_ends_the_iteration() -> None:
    """`done.set()` ends the iteration when a call fails before its run began, the first time and later."""
    handler = AsyncIteratorCallbackHandler()

    async def main() -> list[str]:
        asyncio.get_running_loop().call_soon(handler.done.set)
        return await read(handler)

    assert [asyncio.run(main()), asyncio.run(main())] == [[], []]


def test_closing_the_iteration_frees_the_producer() -> None:
    """The producer no longer waits, and the next run does not yield old tokens."""
    handler = AsyncIteratorCallbackHandler(limit=2)

    async def main() -> list[str]:
        task = asyncio.create_task(produce(start(handler), list("abcdefgh")))
        reading = handler.aiter()
        async for _ in reading:
            break
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done(), "the producer should be waiting for room"
        await reading.aclose()  # type: ignore[attr-defined]
        await task
        task = asyncio.create_task(produce(start(handler), ["x"]))
        tokens = await read(handler)
        await task
        return tokens

    assert asyncio.run(main()) == ["x"]


def test_a_second_iteration_continues_where_the_first_one_stopped() -> None:
    """The first iteration yields one token, the second one yields the others."""
    handler = AsyncIteratorCallbackHandler()

    async def main() -> list[str]:
        await produce(start(handler), ["a", "b", "c"])
        async for token in handler.aiter():
            return [token, *await read(handler)]
        return []

    assert asyncio.run(main()) == ["a", "b", "c"]
