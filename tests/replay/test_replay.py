"""`Replay` returns what was recorded, on both databases."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.escaping import escape
from recorder.errors import Closed, ConfigError, NotFound
from recorder.messages import AIMessage, AIMessageChunk, HumanMessage
from recorder.models import ChatOpenAI, OpenAI
from recorder.replay import Interrupted, Replay, ReplayedError
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, openai_error_frame
from recorder.wire.deltas import Delta
from tests.oracle import begin, finish, record, run_python, say, sql, stored, token


@pytest.fixture
def replay(database: str) -> Iterator[Replay]:
    """Yield a replay of the test's database."""
    with Replay(database) as found:
        yield found


def run_ids(url: str) -> list[str]:
    """Return the ids of the runs in the order in which they began."""
    return [row[0] for row in sql(url, "SELECT id FROM runs ORDER BY started_at")]


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """Return the sum of the chunks."""
    return chunks[0] + chunks[1:]


def at_once(replay: Replay, id: Any, **options: Any) -> list[AIMessageChunk]:
    """Return all chunks of a replay without waiting."""
    return list(replay.stream(str(id), speed=None, **options))


def text_of(chunks: list[AIMessageChunk]) -> str:
    """Return the text of the chunks."""
    return "".join(chunk.text for chunk in chunks)


# -- streams ---------------------------------------------------------------------------------------------------


ANSWERS = {
    "text": Answer(frames=openai_chat_frames(["Sparkling ", "water, é中🎈", "!"])),
    "reasoning": Answer(frames=openai_chat_frames(["Yes."], reasoning=["Let me ", "think"])),
    "tool call": Answer(
        frames=openai_chat_frames(
            [], tool_calls=[{"id": "call_1", "name": "look", "arguments": '{"where": "there"}'}]
        )
    ),
    "cut off": Answer(frames=openai_chat_frames(["Once ", "upon"], finish_reason="length")),
    "filtered": Answer(frames=openai_chat_frames(["I "], finish_reason="content_filter", usage=False)),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_replayed_chunks_add_up_to_the_live_message(
    database: str, replay: Replay, name: str, capture: Any
) -> None:
    """Text, reasoning, calls, finish reason and usage are the same, for `stream` and `astream`."""
    with (
        LoopbackProvider(ANSWERS[name]) as provider,
        ChatHistoryCallback(database, capture=capture) as history,
    ):
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
        live = added(list(chat.stream("Hi")))
    [run_id] = run_ids(database)

    async def later() -> list[AIMessageChunk]:
        return [chunk async for chunk in replay.astream(run_id, speed=None)]

    for again in (added(at_once(replay, run_id)), added(asyncio.run(later()))):
        assert (again.content, again.tool_calls) == (live.content, live.tool_calls)
        assert again.additional_kwargs == live.additional_kwargs
        assert again.usage_metadata == live.usage_metadata
        assert again.chunk_position == "last"
        assert again.response_metadata.items() <= live.response_metadata.items()
        assert again.response_metadata["finish_reason"] == live.response_metadata["finish_reason"]


def test_each_token_is_replayed_as_one_chunk(database: str, replay: Replay) -> None:
    """Its text is unchanged, also with NUL, lone surrogates and the escape character itself."""
    texts = [token(3, seq) for seq in range(500)]
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, texts)
        finish(history, run_id, "done")
    assert [chunk.content for chunk in at_once(replay, run_id)][:500] == texts


class Clock:
    """Replaces the module `time`: `sleep` moves the clock forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def timed_run(url: str, at_us: list[int]) -> uuid.UUID:
    """Record a run whose tokens and frames have these offsets."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        for number, at in enumerate(at_us):
            history.on_stream_frame(b"data: %d\n\n" % number, at, [Delta(str(number))], run_id=run_id)
        finish(history, run_id, "done")
    return run_id


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_tokens_and_frames_come_at_their_times(
    database: str, replay: Replay, monkeypatch: pytest.MonkeyPatch, speed: float
) -> None:
    """A slow caller does not delay later pieces."""
    run_id = timed_run(database, [500_000, 520_000, 1_500_000])
    for play in (replay.stream, replay.frames):
        monkeypatch.setattr("recorder.replay.driver.time", clock := Clock())
        times = []
        for _ in play(str(run_id), speed=speed):
            times.append(round((clock.now - 100) * speed, 3))
            clock.now += 0.01 / speed
        assert times[:3] == [0.5, 0.52, 1.5]


def test_a_part_of_a_run_can_be_replayed(database: str, replay: Replay) -> None:
    """`start` and `until` are token numbers or times, also inside of a row."""
    run_id = timed_run(database, [number * 100_000 for number in range(10)])

    def text_between(**options: Any) -> str:
        return text_of(at_once(replay, run_id, **options))

    assert text_between(start=3, until=6) == "345"
    assert text_between(start=0.25, until=0.6) == "345"
    assert text_between(start=9) == "9"
    assert text_between(until=0) == ""
    assert text_between(start=0.9) == "9"
    assert list(replay.frames(str(run_id), speed=None, start=0.75)) == [b"data: 8\n\n", b"data: 9\n\n"]
    for place in (10, 99, 5.0):
        with pytest.raises(ConfigError, match=r"has 10 tokens; choose an earlier place"):
            text_between(start=place)


def test_a_start_is_found_in_a_run_of_many_rows(database: str, replay: Replay) -> None:
    """The row is found by bisection, by number and by time."""
    with ChatHistoryCallback(database, flush_interval=0) as history:
        run_id = begin(history)
        for number in range(60):
            say(history, run_id, [f"{number};"])
            history.flush().wait(10)
        finish(history, run_id, "done")
    times = [
        row[0] for row in sql(database, "SELECT at_us FROM tokens WHERE run_id = ? ORDER BY seq", str(run_id))
    ]
    for number in (0, 1, 30, 59):
        expected = "".join(f"{each};" for each in range(number, 60))
        assert text_of(at_once(replay, run_id, start=number)) == expected
        assert text_of(at_once(replay, run_id, start=times[number] / 1e6)) == expected


def test_replayed_frames_are_the_body(database: str, replay: Replay) -> None:
    """They are the same bytes; a run without frames has none."""
    with LoopbackProvider("Hello there!") as provider:
        for capture in ("wire", "tokens"):
            with ChatHistoryCallback(database, capture=capture) as history:
                ChatOpenAI(
                    base_url=provider.base_url, api_key="any", callbacks=[history], streaming=True
                ).invoke("Hi")
    with_frames, without = run_ids(database)
    body = b"".join(replay.frames(with_frames, speed=None))
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")
    assert list(replay.frames(without, speed=None)) == []


# -- ends --------------------------------------------------------------------------------------------------------


def failed_run(url: str, answer: Answer | None) -> Exception:
    """Record a failed run and return the exception of its model."""
    with LoopbackProvider(answer) as provider, ChatHistoryCallback(url) as history:
        base_url = provider.base_url if answer else "http://127.0.0.1:9/v1"
        chat = ChatOpenAI(base_url=base_url, api_key="any", max_retries=0, callbacks=[history])
        with pytest.raises(openai.OpenAIError) as raised:
            list(chat.stream("Hi"))
    return raised.value


@pytest.mark.parametrize(
    "answer",
    [
        Answer.error(429),
        Answer.error(401),
        Answer.error(500),
        Answer(frames=[*openai_chat_frames(["Hello"])[:2], openai_error_frame("Overloaded")]),
        None,
    ],
    ids=["429", "401", "500", "in the stream", "nobody there"],
)
def test_a_replay_raises_the_recorded_error(database: str, replay: Replay, answer: Answer | None) -> None:
    """It comes after the tokens, with the same class, message and status."""
    live = failed_run(database, answer)
    [run_id] = run_ids(database)
    with pytest.raises(type(live)) as raised:
        at_once(replay, run_id)
    again = raised.value
    assert type(again) is type(live)
    assert str(again) == str(live)
    for name in ("status_code", "message"):
        assert getattr(again, name, None) == getattr(live, name, None)


class OddConstructor(Exception):
    """An exception whose constructor needs other arguments than a message."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"{code} at {where}")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no"), ValueError, "no"),
        (OddConstructor(7, "home"), OddConstructor, "7 at home"),
        (
            type("Gone", (Exception,), {"__module__": "nowhere.to.be.found"})("lost"),
            ReplayedError,
            "nowhere.to.be.found.Gone: lost",
        ),
        (KeyError("name"), KeyError, "'name'"),
        (ValueError(), ValueError, ""),
        (OSError(2, "No such file", "a.txt"), OSError, "[Errno 2] No such file: 'a.txt'"),
        (
            ExceptionGroup("two of them", [ValueError("a"), KeyError("b")]),
            ReplayedError,
            "ExceptionGroup: two of them (2 sub-exceptions)",
        ),
        (
            UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"),
            ReplayedError,
            "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte",
        ),
        (StopIteration("over"), ReplayedError, "StopIteration: over"),
        (StopAsyncIteration("over"), ReplayedError, "StopAsyncIteration: over"),
        (SystemExit(3), ReplayedError, "SystemExit: 3"),
        (
            BaseExceptionGroup("one", [SystemExit(3)]),
            ReplayedError,
            "BaseExceptionGroup: one (1 sub-exception)",
        ),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, BaseException) else "",
)
def test_any_recorded_exception_is_raised_again(
    database: str, replay: Replay, error: Exception, kind: type[Exception], message: str
) -> None:
    """Its constructor is not called if it needs other arguments; an unknown class becomes ReplayedError."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "ab")
        history.on_llm_error(error, run_id=run_id)
    chunks = replay.stream(str(run_id), speed=None)
    assert [next(chunks).content, next(chunks).content] == ["a", "b"]
    with pytest.raises(kind) as raised:
        next(chunks)
    assert str(raised.value) == message


def test_a_replayed_error_has_class_message_and_status(database: str, replay: Replay) -> None:
    """The same holds on an event loop and for handlers."""

    class RateLimitError(Exception):
        """An error of an SDK that is not installed."""

        __module__ = "their_sdk"

    error = RateLimitError("Error code: 429 - {'error': 'slow down'}")
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        history.on_llm_error(error, run_id=run_id)

    async def on_a_loop() -> None:
        async for _ in replay.astream(str(run_id), speed=None):
            pass

    with pytest.raises(ReplayedError) as raised:
        at_once(replay, run_id)
    assert raised.value.error_type == f"their_sdk.{RateLimitError.__qualname__}"
    assert (raised.value.message, raised.value.status) == (str(error), 429)
    with pytest.raises(ReplayedError):
        asyncio.run(on_a_loop())
    notes = Notes()
    replay.into(notes, str(run_id))
    assert notes.calls[-1][:2] == ("error", ReplayedError)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "SystemExit",
            "KeyboardInterrupt",
            "GeneratorExit",
            "asyncio.exceptions.CancelledError",
            "BaseException",
        ),
        *("print", "int", "", ".", "..", "openai.__main__.main", "json.tool.main", "a.\ud800", "os.system"),
        *("openai.APIStatusError", "openai.LengthFinishReasonError", "Exception.__class__", "__main__"),
    ],
)
def test_an_error_type_in_a_row_can_do_no_harm(database: str, replay: Replay, name: str) -> None:
    """A malicious row can neither end the process or a task, nor import a module."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        history.on_llm_error(ValueError("no"), run_id=run_id)
    change(database, "UPDATE runs SET error_type = ?", escape(name))
    before = set(sys.modules)
    with pytest.raises(ReplayedError if name else Exception, match="no"):
        at_once(replay, run_id)
    assert {new for new in sys.modules.keys() - before if new.endswith(("__main__", "tool"))} == set()


def test_a_replay_imports_no_module_of_an_error(
    database: str, replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class is used only if the application has already imported its module."""
    (tmp_path / "theirs.py").write_text("class Gone(Exception): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        history.on_llm_error(type("Gone", (Exception,), {"__module__": "theirs"})("lost"), run_id=run_id)
    with pytest.raises(ReplayedError, match=r"theirs\.Gone: lost"):
        at_once(replay, run_id)
    assert "theirs" not in sys.modules
    with pytest.raises(importlib.import_module("theirs").Gone, match="lost"):
        at_once(replay, run_id)
    del sys.modules["theirs"]


class Notes(BaseCallbackHandler):
    """A handler that stores the events it receives."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **more: Any) -> None:
        self.calls.append(("start", [message.text for message in messages[0]]))

    def on_llm_start(self, serialized: Any, prompts: Any, **more: Any) -> None:
        self.calls.append(("llm start", prompts))

    def on_chat_new_message(self, message: Any) -> None:
        self.calls.append(("message", message.role, message.text))

    def on_llm_new_token(self, token: str, **more: Any) -> None:
        if token:
            self.calls.append(token)

    def on_llm_end(self, response: Any, **more: Any) -> None:
        [[generation]] = response.generations
        usage = response.llm_output["token_usage"]
        self.calls.append(("end", generation.text, generation.generation_info["finish_reason"], usage))

    def on_llm_error(self, error: BaseException, **more: Any) -> None:
        self.calls.append(("error", type(error), str(error)))


def test_a_cancelled_run_ends_with_its_status(database: str, replay: Replay) -> None:
    """Its last chunk has the status, and handlers receive CancelledError."""
    with LoopbackProvider("one two three four") as provider, ChatHistoryCallback(database) as history:
        chat = ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history])
        for chunk in chat.stream("Hi"):
            if "two" in chunk.text:
                break
    [run_id] = run_ids(database)
    chunks = at_once(replay, run_id)
    assert text_of(chunks).startswith("one two")
    assert chunks[-1].response_metadata == {"status": "cancelled"}
    replay.into([notes := Notes()], run_id)
    assert notes.calls[-1][:2] == ("error", asyncio.CancelledError)


def test_a_gap_is_replayed_in_its_place(database: str, replay: Replay) -> None:
    """Its chunk has number, count and reason, and the stored tokens are played."""
    history = ChatHistoryCallback(
        database, max_queue_bytes=3_000, overflow="drop_newest", flush_interval=3600
    )
    run_id = begin(history)
    history.flush().wait(10)
    say(history, run_id, [f"{number} " for number in range(40)])
    history.flush().wait(10)
    say(history, run_id, ["after"])
    finish(history, run_id, "done")
    history.close().wait(10)
    chunks = at_once(replay, run_id)
    [shown] = [chunk.additional_kwargs["gap"] for chunk in chunks if chunk.additional_kwargs]
    found = stored(database, run_id)
    assert [(shown["seq"], shown["count"], shown["reason"])] == found.gaps
    assert text_of(chunks) == "".join(found.texts.values())
    assert text_of(chunks).endswith("after")


# -- into handlers -----------------------------------------------------------------------------------------------


def test_handlers_of_a_replay_receive_the_live_events(database: str, replay: Replay) -> None:
    """Start, messages, tokens and end are the same for chats and completions, with and without a loop."""
    for make, path in ((ChatOpenAI, "chat"), (OpenAI, "text")):
        with LoopbackProvider("La la la") as provider, ChatHistoryCallback(database) as history:
            live = Notes()
            make(base_url=provider.base_url, api_key="any", callbacks=[history, live], streaming=True).invoke(
                "Sing!"
            )
        run_id = run_ids(database)[-1]
        again, later = Notes(), Notes()
        replay.into([again], run_id)
        asyncio.run(replay.ainto([later], run_id))
        assert again.calls == later.calls == live.calls, path


def test_asynchronous_handlers_of_a_replay_are_awaited(database: str, replay: Replay) -> None:
    """They receive all tokens in order, as under a model."""
    received = []

    class Slow(BaseCallbackHandler):
        async def on_llm_new_token(self, token: str, **more: Any) -> None:
            await asyncio.sleep(0)
            received.append(token)

    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, "abc")
        finish(history, run_id, "abc")
    replay.into([Slow()], str(run_id))
    assert received == ["a", "b", "c"]


def test_a_replay_into_a_recorder_makes_an_equal_run(database: str, replay: Replay, tmp_path: Any) -> None:
    """Tokens, frames, hashes and messages are the same in the other database."""
    with LoopbackProvider(ANSWERS["tool call"]) as provider, ChatHistoryCallback(database) as history:
        ChatOpenAI(base_url=provider.base_url, api_key="any", callbacks=[history], streaming=True).invoke(
            "Hi"
        )
    [run_id] = run_ids(database)
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    with ChatHistoryCallback(copy) as history:
        replay.into(history, run_id)
    query = "SELECT conversation_id, status, token_count, sha256, frames_sha256, finish_reason, input_hash FROM runs"
    assert sql(copy, query) == sql(database, query)
    query = "SELECT id, parent_id, role, content FROM messages ORDER BY position"
    assert sql(copy, query) == sql(database, query)


# -- conversations -------------------------------------------------------------------------------------------------


def test_a_conversation_is_replayed_along_its_newest_branch(
    database: str, replay: Replay, caplog: pytest.LogCaptureFixture
) -> None:
    """Its runs are played one after another, and a log message says that there are other branches."""
    with ChatHistoryCallback(database, conversation_id="song") as history:
        first = [HumanMessage("Sing!")]
        record(history, *first, reply="La")
        record(history, *first, AIMessage("La"), HumanMessage("More!"), reply="Lala")
        record(history, *first, AIMessage("La"), HumanMessage("Louder!"), reply="LA")
    with caplog.at_level(logging.INFO, "recorder"):
        assert text_of(at_once(replay, "song")) == "LaLA"
    assert "Conversation song has other branches; the newest one is played" in caplog.messages
    assert [run.id for run in replay.runs("song")] == [run_ids(database)[0], run_ids(database)[2]]
    with pytest.raises(ConfigError, match=r"'song' is a conversation.*pass the id of a run"):
        at_once(replay, "song", start=1)


# -- ids -----------------------------------------------------------------------------------------------------------


def test_an_unknown_id_is_refused_by_a_replay(database: str, replay: Replay) -> None:
    """The error lists the nearest stored ids."""
    with ChatHistoryCallback(database, conversation_id="support-17") as history:
        record(history)
    with pytest.raises(
        NotFound, match=r"Nothing is stored under 'suport-17'; the nearest are:\n  conversation support-17"
    ):
        at_once(replay, "suport-17")


def test_the_start_of_an_id_is_enough_if_it_is_unique(database: str, replay: Replay) -> None:
    """A complete id is found although it is the start of another one."""
    with ChatHistoryCallback(database) as history:
        for number in (0x0A, 0x0B):
            record(history, run_id=uuid.UUID(int=number << 120), conversation_id=None, reply=hex(number))
    assert text_of(at_once(replay, "0A")) == "0xa"
    assert text_of(at_once(replay, "0b000000-00")) == "0xb"
    with pytest.raises(
        NotFound,
        match=r"More than one id begins with '0'; write more characters of one of these:\n[\s\S]*run 0a000000",
    ):
        at_once(replay, "0")
    with ChatHistoryCallback(database) as history:
        for name in ("talk", "talk-2"):
            with history.conversation(name):
                record(history, reply=name)
    assert text_of(at_once(replay, "talk")) == "talk"


def test_without_an_id_the_newest_run_is_replayed(database: str, replay: Replay) -> None:
    """It is the run that began last; without any run an error says so."""
    with pytest.raises(NotFound, match="holds no run yet; record something"):
        list(replay.stream())
    with ChatHistoryCallback(database) as history:
        record(history, reply="older")
        record(history, reply="newer")
    assert text_of(list(replay.stream(speed=None))) == "newer"
    assert len(replay.runs()) == 1


def test_a_run_without_tokens_is_replayed_without_tokens(database: str, replay: Replay) -> None:
    """The replay has no text and no frames."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        finish(history, run_id)
    assert text_of(at_once(replay, run_id)) == ""
    assert list(replay.frames(str(run_id))) == []


# -- damaged rows --------------------------------------------------------------------------------------------------


def test_a_damaged_row_is_logged_and_the_others_are_replayed(
    database: str, replay: Replay, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged row of tokens becomes a gap, and a damaged row of frames is left out."""
    with ChatHistoryCallback(database, flush_interval=0, frames_interval=0) as history:
        run_id = begin(history)
        for number in range(3):
            history.on_stream_frame(b"data: %d\n\n" % number, number, [Delta(str(number))], run_id=run_id)
            history.flush().wait(10)
        finish(history, run_id, "done")
    damage(database, run_id)
    chunks = at_once(replay, run_id)
    assert text_of(chunks) == "02"
    assert [chunk.additional_kwargs["gap"]["seq"] for chunk in chunks if chunk.additional_kwargs] == [1]
    assert list(replay.frames(str(run_id), speed=None)) == [b"data: 0\n\n", b"data: 2\n\n"]
    assert [message.partition(" is damaged")[0] for message in caplog.messages] == [
        f"Run {run_id}: the row of tokens 1", f"Run {run_id}: the row of frames 1"
    ]  # fmt: skip


def damage(url: str, run_id: uuid.UUID) -> None:
    """Give the second row of tokens too few items, and the second row of frames other bytes."""
    tokens = "UPDATE segments SET deltas = '[]' WHERE run_id = ? AND seq = 1"
    frames = "UPDATE frames SET data = ? WHERE run_id = ? AND seq = 1"
    change(url, tokens, str(run_id))
    change(url, frames, b"\x00rubbish", str(run_id))


def change(url: str, statement: str, *given: object) -> None:
    """Execute a statement as another program would."""
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(statement, given)
    else:
        sql(url, statement, *given)


# -- imports and resources -----------------------------------------------------------------------------------------


def test_a_replay_imports_no_sdk(database: str) -> None:
    """Neither an SDK nor LangChain is imported."""
    with ChatHistoryCallback(database) as history:
        run_id = record(history, reply="Hello")
    code = """
import sys
from recorder.replay import Replay
with Replay(sys.argv[1]) as replay:
    print("".join(chunk.content for chunk in replay.stream(sys.argv[2], speed=None)))
print([name for name in ("openai", "anthropic", "langchain_core") if name in sys.modules])
"""
    done = run_python(code, database, run_id)
    assert done.stdout == "Hello\n[]\n", done.stderr


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me@host/db", "ConfigError Database URLs of scheme 'mysql' are not supported"),
        ("postgresql://me@host/db", "MissingExtra Postgres needs asyncpg; run: pip install"),
    ],
)
def test_an_unusable_url_raises_one_error(url: str, message: str) -> None:
    """No further message is printed when the partly made replay is collected."""
    code = """
import sys
sys.modules["asyncpg"] = None
from recorder.replay import Replay
try:
    Replay(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run_python(code, url)
    assert (done.stdout[: len(message)], done.stderr) == (message, "")


def test_replays_of_one_database_share_a_reader(database: str) -> None:
    """The reader's thread ends with the last replay that is closed."""
    before = readers()
    one, other = Replay(database), Replay(database)
    with ChatHistoryCallback(database) as history:
        run_id = record(history, reply="Hello")
    assert text_of(at_once(one, run_id)) == text_of(at_once(other, run_id)) == "Hello"
    assert len(readers() - before) == 1
    one.close()
    assert text_of(at_once(other, run_id)) == "Hello"
    other.close()
    assert readers() <= before


def readers() -> set[threading.Thread]:
    """Return the threads that read a database now; others may have been left by garbage of earlier tests."""
    return {thread for thread in threading.enumerate() if thread.name == "recorder-reader"}


def test_a_closed_replay_raises_closed(database: str) -> None:
    """This holds in the middle of a stream, too."""
    with ChatHistoryCallback(database) as history:
        run_id = record(history, reply="Hello")
    with Replay(database) as replay:
        chunks = replay.stream(str(run_id), speed=None, follow=True)
        next(chunks)
    with pytest.raises(Closed, match="This replay is closed; make another one"):
        list(chunks)
    with pytest.raises(Closed):
        list(replay.stream(str(run_id)))


def test_an_interrupted_run_ends_with_its_status(database: str, replay: Replay) -> None:
    """Handlers receive Interrupted with the number of tokens."""
    history = ChatHistoryCallback(database)
    run_id = begin(history)
    say(history, run_id, "ab")
    history.close().wait(10)
    assert at_once(replay, run_id)[-1].response_metadata == {"status": "interrupted"}
    replay.into([notes := Notes()], str(run_id))
    assert notes.calls[-1] == ("error", Interrupted, f"Run {run_id} was interrupted after 2 tokens")
