"""Callbacks: every kind of handler hears of a run, and none of them can break it."""

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
    """The handlers of one run."""
    return Dispatch(handlers, run_id=RUN, parent_run_id=PARENT, tags=["t"], metadata={"m": 1})


def whole_run(run: Dispatch) -> None:
    """One of each event."""
    run.chat_model_start({"name": "m"}, [HumanMessage("Hello")], options=None)
    run.new_message(HumanMessage("Hello"))
    run.stream_frame(b"data: 1\n\n", 5, [Delta("Hi")])
    run.new_token("Hi", CHUNK)
    run.llm_end(RESULT)
    run.llm_error(ValueError("x"), RESULT)


class Everything(BaseCallbackHandler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.heard.append(("start", serialized, messages, kwargs))

    def on_chat_new_message(self, message: BaseMessage) -> None:
        self.heard.append(("message", message))

    def on_stream_frame(self, frame: bytes, at_us: int, deltas: Any, *, run_id: uuid.UUID) -> None:
        self.heard.append(("frame", frame, at_us, deltas, run_id))

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.heard.append(("token", token, kwargs))

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.heard.append(("end", response, kwargs))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.heard.append(("error", str(error), kwargs))


def test_a_handler_hears_of_everything_with_langchains_arguments() -> None:
    """Run ids are UUIDs; messages come as a list of lists; metadata only at the start."""
    handler = Everything()
    whole_run(Dispatch([handler], run_id=str(RUN), parent_run_id=PARENT, tags=["t"], metadata={"m": 1}))
    common = {"run_id": RUN, "parent_run_id": PARENT, "tags": ["t"]}
    assert handler.heard == [
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


def test_methods_left_alone_are_never_called() -> None:
    """A base no-op costs nothing, and the run knows that nobody wants its tokens and frames."""
    silent = dispatch(BaseCallbackHandler(), CallbackHandler())
    assert (silent.wants_frames, silent.wants_tokens) == (False, False)
    assert silent.new_token("x", CHUNK) is None

    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None: ...

    assert (dispatch(Tokens()).wants_frames, dispatch(Tokens()).wants_tokens) == (False, True)
    assert dispatch(Everything()).wants_frames


def test_the_example_of_the_documents_stores_each_message() -> None:
    """A handler without **kwargs that writes role and content, and never calls super().__init__()."""

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
    """Duck-typed: methods of the class or of the instance, and a mock."""

    class Duck:
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            heard.append(token)

    heard: list[str] = []
    duck: Any = Duck()
    duck.on_llm_end = lambda response, **kwargs: heard.append("end")
    mock = MagicMock(spec=BaseCallbackHandler)
    whole_run(dispatch(*handlers_from([duck, mock])))
    assert heard == ["Hi", "end"]
    mock.on_llm_new_token.assert_called_once_with(
        "Hi", chunk=CHUNK, run_id=RUN, parent_run_id=PARENT, tags=["t"]
    )


def test_langchains_handlers_work() -> None:
    """Their no-ops are not called, and one without `on_chat_model_start` hears of the prompt as text."""
    base = pytest.importorskip("langchain_core.callbacks")
    heard: list[Any] = []

    class Prompts(base.BaseCallbackHandler):  # type: ignore[misc, name-defined]
        def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
            heard.append((prompts, kwargs["run_id"], kwargs["metadata"]))

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
    assert heard == [(["System: s\nHuman: Hello"], RUN, {"m": 1})] * 3
    stdout = base.StreamingStdOutCallbackHandler()
    whole_run(dispatch(stdout))
    assert failures(stdout) == {}
    manager = base.CallbackManager(handlers=[stdout])
    assert handlers_from(manager) == [stdout]


def test_messages_as_text_read_as_langchains() -> None:
    """Its `get_buffer_string`, tool calls and blocks included."""
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
    """`on_llm_start` and nothing else."""
    handler = MagicMock(spec=BaseCallbackHandler)
    dispatch(handler).llm_start({"name": "m"}, ["Hello"])
    handler.on_llm_start.assert_called_once_with(
        {"name": "m"}, ["Hello"], run_id=RUN, parent_run_id=PARENT, tags=["t"], metadata={"m": 1}
    )
    handler.on_chat_model_start.assert_not_called()


class Broken(BaseCallbackHandler):
    """Fails at each token."""

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise LookupError(token)


class BrokenLater(BaseCallbackHandler):
    """Fails at each token, when awaited."""

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        raise LookupError(token)


@pytest.mark.parametrize("kind", [Broken, BrokenLater])
def test_a_failing_handler_is_logged_once_and_the_others_go_on(
    kind: type[BaseCallbackHandler], caplog: pytest.LogCaptureFixture
) -> None:
    """In this run and the next: one line with a traceback, the rest is counted."""
    broken, sound = kind(), Everything()
    for run in (dispatch(broken, sound), dispatch(broken, sound)):
        settle_now(run.new_token("a") or [])
        asyncio.run(settle(run.new_token("b") or []))
    assert [each[1] for each in sound.heard] == ["a", "b", "a", "b"]
    assert failures(broken) == {"on_llm_new_token": 4}
    assert [record.name for record in caplog.records] == ["recorder"]
    assert f"{kind.__name__}.on_llm_new_token raised LookupError('a')" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("kind", [Broken, BrokenLater])
def test_a_handler_may_ask_to_end_the_call(kind: type[BaseCallbackHandler]) -> None:
    """`raise_error = True`; coroutines that others gave are closed, not forgotten."""

    class Slow(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None: ...

    handler = kind()
    handler.raise_error = True
    for wait in (settle_now, lambda pending: asyncio.run(settle(pending))):
        run = dispatch(Slow(), handler, Slow())
        with pytest.raises(LookupError):
            wait(run.new_token("a") or [])
    assert failures(handler) == {}


def test_failures_of_a_handler_are_forgotten_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """A later handler at the same address starts at zero; without weak references the class is counted."""

    class Slotted:
        __slots__ = ()

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise LookupError

    caplog.set_level(logging.CRITICAL, "recorder")  # a kept traceback would keep the handler alive
    for _ in range(3):
        broken = Broken()
        dispatch(broken).new_token("a")
        assert failures(broken) == {"on_llm_new_token": 1}
        del broken
    dispatch(Slotted(), Slotted()).new_token("a")
    assert failures(Slotted()) == {"on_llm_new_token": 2}


def test_what_ends_the_program_is_not_swallowed() -> None:
    """Ctrl-C in a handler is Ctrl-C."""

    class Interrupted(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dispatch(Interrupted()).new_token("a")


def test_only_what_can_be_waited_for_is_returned() -> None:
    """A handler may return anything; a Wait and a coroutine are kept, in order."""
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


class Watched(Wait[None]):
    """A wait that keeps how long it was waited for, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float] = []

    def wait(self, timeout: float | None = None) -> None:
        if timeout is not None:
            self.timeouts.append(timeout)
        super().wait(timeout)


class Waits(BaseCallbackHandler):
    """Asks to wait at each token."""

    def __init__(self) -> None:
        self.wait = Watched()

    def on_llm_new_token(self, token: str, **kwargs: Any) -> Wait[None]:
        return self.wait


def test_a_wait_holds_synchronous_and_asynchronous_code() -> None:
    """Until another thread ends it."""
    for settle_it in (settle_now, lambda pending: asyncio.run(settle(pending))):
        handler = Waits()
        pending = dispatch(handler).new_token("a")
        assert pending is not None
        other = threading.Thread(target=handler.wait.set, args=[None])
        other.start()
        settle_it(pending)
        assert handler.wait.done
        other.join()


def test_a_wait_that_takes_too_long_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The application goes on; the limit holds for all together."""
    handler = Waits()
    run = dispatch(handler, handler)
    for _ in range(2):
        settle_now(run.new_token("a") or [], timeout=0.05)
    assert all(sum(each) <= 0.05 for each in zip(*[iter(handler.wait.timeouts)] * 2, strict=True))
    assert failures(handler) == {"on_llm_new_token": 4}
    assert len(caplog.records) == 1


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    """The same limit for an async handler."""

    class Hangs(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            await asyncio.Event().wait()

    handler = Hangs()
    settle_now(dispatch(handler).new_token("a") or [], timeout=0.01)
    assert failures(handler) == {"on_llm_new_token": 1}


class Where(BaseCallbackHandler):
    """Remembers where its coroutine ran."""

    def __init__(self) -> None:
        self.places: list[tuple[Any, int, str]] = []

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.places.append((asyncio.get_running_loop(), threading.get_ident(), VARIABLE.get()))


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def test_async_handlers_run_under_synchronous_code_on_one_loop_of_this_thread() -> None:
    """What a handler opens at the first token is still usable at the next; context variables arrive."""
    handler = Where()
    run = dispatch(handler)
    token = VARIABLE.set("mine")
    for _ in range(2):
        settle_now(run.new_token("a") or [])
    VARIABLE.reset(token)
    assert [each[1:] for each in handler.places] == [(threading.get_ident(), "mine")] * 2
    assert handler.places[0][0] is handler.places[1][0]


def test_async_handlers_run_beside_a_running_loop() -> None:
    """Synchronous code inside a coroutine: another thread, the same loop each time, context variables too."""
    handler = Where()
    run = dispatch(handler)

    async def main() -> None:
        VARIABLE.set("main")
        for _ in range(2):
            settle_now(run.new_token("a") or [])

    asyncio.run(main())
    loops, threads, values = zip(*handler.places, strict=True)
    assert (len(set(loops)), len(set(threads)), set(values)) == (1, 1, {"main"})
    assert threads[0] != threading.get_ident()


def test_an_async_handler_may_use_a_synchronous_model_itself() -> None:
    """Settling inside settling does not lock up."""
    inner = Where()

    class Outer(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            settle_now(dispatch(inner).new_token(token) or [])

    outer = Outer()

    async def main() -> None:
        settle_now(dispatch(outer).new_token("a") or [])

    asyncio.run(main())
    settle_now(dispatch(outer).new_token("b") or [])
    assert (len(inner.places), failures(outer)) == (2, {})


def test_private_loops_end_with_their_threads() -> None:
    """No loop stays open behind a thread that is gone (an unclosed one would be a warning, an error here)."""
    handler = Where()
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
    """The child makes a loop and a helper of its own, and leaves the parent's as they are."""
    handler = Where()
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
    """The parent's loop goes on to watch what wakes it; of both, the system has only one list."""
    done = run_python(
        """
import os, sys, uuid, warnings
from pathlib import Path
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of Python 3.12: it forks beside threads
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
    """The cancellation comes through, and what was still to be awaited is closed."""

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
    """A CancelledError out of a handler's own futures ends nobody's stream."""

    class Cancels(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            raise asyncio.CancelledError

    handler = Cancels()
    asyncio.run(settle(dispatch(handler).new_token("a") or []))
    settle_now(dispatch(handler).new_token("a") or [])
    assert failures(handler) == {"on_llm_new_token": 2}


def test_callbacks_are_none_one_or_several_each_once() -> None:
    """The same handler given twice records once."""
    one, two = Everything(), Broken()
    assert handlers_from(None) == handlers_from([]) == []
    assert handlers_from(one) == [one]
    assert handlers_from((one, two, one)) == [one, two]


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        (Everything, r"the class Everything .* pass Everything\(\.\.\.\)"),
        ([BaseCallbackHandler], "the class BaseCallbackHandler"),
        ("stdout", "got str 'stdout', which is not a handler: it has none of on_chat_model_start"),
        ([None], "got NoneType None"),
    ],
)
def test_what_is_no_handler_is_refused_with_the_remedy(callbacks: Any, says: str) -> None:
    """The commonest slip is a class in place of an instance."""
    with pytest.raises(ConfigError, match=says):
        handlers_from(callbacks)


def test_tokens_go_to_standard_output_as_it_is_at_that_moment(capsys: pytest.CaptureFixture[str]) -> None:
    """A redirection in the middle of a stream takes the rest."""
    run = dispatch(StreamingStdOutCallbackHandler())
    for token in ("Verse ", "", "1\n"):
        run.new_token(token)
    assert capsys.readouterr().out == "Verse 1\n"


def test_a_piece_without_text_does_not_touch_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces of a tool call have empty tokens."""
    monkeypatch.setattr(sys, "stdout", out := MagicMock())
    dispatch(StreamingStdOutCallbackHandler()).new_token("", CHUNK)
    assert out.mock_calls == []


class Narrow(io.TextIOWrapper):
    """A terminal that knows only ASCII."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")

    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_terminal_that_cannot_show_a_character_gets_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also half of a surrogate pair, which no terminal can show."""
    monkeypatch.setattr(sys, "stdout", narrow := Narrow())
    run = dispatch(StreamingStdOutCallbackHandler())
    for token in ("a", "é", "\ud800"):
        run.new_token(token)
    assert narrow.written() == b"a\\xe9\\ud800"


@pytest.mark.parametrize("gone", ["closed", "missing"])
def test_a_standard_output_that_is_gone_does_not_end_the_stream(
    gone: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where handlers may raise; it is said once."""
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
    """A run of that handler, begun."""
    run = dispatch(handler)
    run.chat_model_start({}, [])
    return run


async def read(handler: AsyncIteratorCallbackHandler) -> list[str]:
    """All tokens of one iteration."""
    return [token async for token in handler.aiter()]


async def read_into(tokens: list[str], handler: AsyncIteratorCallbackHandler) -> None:
    """The same, for an iteration that fails on the way."""
    async for token in handler.aiter():
        tokens.append(token)


async def produce(run: Dispatch, tokens: list[str]) -> None:
    """An asynchronous model."""
    for token in tokens:
        await asyncio.sleep(0)
        await settle(run.new_token(token) or [])
    await settle(run.llm_end(RESULT) or [])


def test_tokens_are_iterated_while_the_model_runs_in_a_task() -> None:
    """The pattern of the documents: a task for the call, a loop for its tokens; empty ones are skipped."""

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


def test_a_handler_serves_one_run_after_another_and_one_loop_after_another() -> None:
    """Made outside of any loop; the second iteration may begin before the second run does."""
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
    """A synchronous model in a worker thread; `done` can be awaited beside the loop."""
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
    """No more than the limit is held, plus the token that had to wait."""
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


def test_calling_first_and_iterating_afterwards_does_not_lock_up() -> None:
    """`await agenerate()` and only then `aiter()`: what fits is held and nobody waits."""
    handler = AsyncIteratorCallbackHandler(limit=3)

    async def main() -> list[str]:
        await produce(start(handler), ["a", "b", "c"])
        return await read(handler)

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_tokens_that_nobody_read_in_time_are_missed_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """The application's call goes on; the reader gets what was held, then the error; one line is logged."""
    handler = AsyncIteratorCallbackHandler(limit=3)

    async def main() -> list[str]:
        await produce(start(handler), list("abcdef"))
        tokens: list[str] = []
        with pytest.raises(RecorderError, match=r"3 tokens are missing here\..*another task.*limit="):
            await read_into(tokens, handler)
        return tokens

    assert asyncio.run(main()) == ["a", "b", "c"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_producer_that_does_not_wait_cannot_fill_the_memory() -> None:
    """Twice the limit is the end, with a reader as well."""
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


def test_nobody_waits_where_that_would_stop_the_reader_itself() -> None:
    """A synchronous model on the reader's loop, and a call inside the reader's own loop body, go on."""
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
    """What had come is read; the error itself is raised where the model was called."""
    handler = AsyncIteratorCallbackHandler()

    async def main() -> list[str]:
        run = start(handler)
        run.new_token("a")
        run.llm_error(ValueError("boom"))
        return await read(handler)

    assert asyncio.run(main()) == ["a"]


def test_an_application_may_end_the_iteration_by_itself() -> None:
    """A call that fails before the run began: the pattern's `finally: done.set()`, first run or second."""
    handler = AsyncIteratorCallbackHandler()

    async def main() -> list[str]:
        asyncio.get_running_loop().call_soon(handler.done.set)
        return await read(handler)

    assert [asyncio.run(main()), asyncio.run(main())] == [[], []]


def test_a_reader_that_leaves_frees_the_producer() -> None:
    """It goes on at full speed, and the next run does not begin with the leftovers."""
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


def test_a_reader_may_leave_and_come_back() -> None:
    """The first token alone, then the rest."""
    handler = AsyncIteratorCallbackHandler()

    async def main() -> list[str]:
        await produce(start(handler), ["a", "b", "c"])
        async for token in handler.aiter():
            return [token, *await read(handler)]
        return []

    assert asyncio.run(main()) == ["a", "b", "c"]
