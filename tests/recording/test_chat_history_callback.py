"""What `ChatHistoryCallback` is called with is in the tables afterwards."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.escaping import unescape, unescape_json
from recorder.errors import ConfigError
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    ChatGenerationChunk,
    Generation,
    HumanMessage,
    LLMResult,
    SystemMessage,
    UsageMetadata,
    from_dict,
)
from recorder.models import ChatOpenAI
from recorder.redaction.credentials import is_secret_name
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.rows import CANCELLED, COMPLETE, ERROR, INCOMPLETE, INTERRUPTED
from recorder.testing import Answer, LoopbackProvider, MemoryStore, openai_chat_frames
from recorder.wire.deltas import OTHER, REASONING, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.from_chunks import deltas_of
from tests.oracle import assert_whole, begin, finish, new_url, record, result, say, sql, stored

#: Any text, with halves of surrogate pairs too.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.fixture
def url(database: str) -> str:
    """A new database."""
    return database


def conversations(url: str) -> list[str]:
    """The conversation of each run, in the order in which the runs began."""
    return [row[0] for row in sql(url, "SELECT conversation_id FROM runs ORDER BY started_at")]


def transcript(url: str) -> list[tuple[str, str]]:
    """Role and content of every message, as the view `transcripts` has them."""
    return sql(url, "SELECT role, content FROM transcripts ORDER BY position, branch")


def run_row(url: str, *columns: str) -> tuple[Any, ...]:
    """The values of these columns of the only run."""
    [row] = sql(url, f"SELECT {', '.join(columns)} FROM runs")
    return tuple(row)


# -- before the first token ----------------------------------------------------------------------------------


def test_the_question_is_stored_before_the_first_token(url: str) -> None:
    """The run has the status `streaming`, and its request is stored, before any token comes."""
    with ChatHistoryCallback(url, flush_interval=3600) as history:
        run_id = begin(
            history, SystemMessage("Be brief."), HumanMessage("Sing."), tags=["a", "b"],
            metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "user_id": 7, "more": {"x": [1]}},
            invocation_params={"model": "gpt-4o-mini", "temperature": 0}, input_hash="hash", wire="openai.chat",
        )  # fmt: skip
        while not sql(url, "SELECT 1 FROM runs"):
            pass
        assert transcript(url) == [("system", "Be brief."), ("user", "Sing."), ("assistant", None)]
        columns = (
            "id",
            "status",
            "operation",
            "provider_name",
            "request_model",
            "wire",
            "input_hash",
            "attempt",
        )
        assert run_row(url, *columns) == (
            str(run_id), "streaming", "chat", "openai", "gpt-4o-mini", "openai.chat", "hash", 1
        )  # fmt: skip
        tags, metadata, request = map(json.loads, run_row(url, "tags", "metadata", "request"))
        assert (tags, request) == (["a", "b"], {"model": "gpt-4o-mini", "temperature": 0})
        assert metadata["more"] == {"x": [1]}
        assert sql(url, "SELECT user_id FROM conversations") == [("7",)]


def test_a_streaming_run_shows_its_partial_text(url: str) -> None:
    """`transcripts` and `tokens` have the stored text of a run that has not ended."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history, HumanMessage("Sing."))
        say(history, run_id, ["La", " la"])
        history.flush().wait(10)
        assert transcript(url) == [("user", "Sing."), ("assistant", "La la")]
        assert sql(url, "SELECT seq, kind, idx, text FROM tokens") == [
            (0, "text", "0", "La"),
            (1, "text", "0", " la"),
        ]


def test_the_prompt_of_a_completion_model_is_a_user_message(url: str) -> None:
    """`on_llm_start` gives the prompt as a text."""
    with ChatHistoryCallback(url) as history:
        run_id = uuid.uuid4()
        history.on_llm_start({}, ["Once upon"], run_id=run_id)
        history.on_llm_new_token(" a time", run_id=run_id)
        history.on_llm_end(LLMResult(generations=[[Generation(" a time")]]), run_id=run_id)
    assert transcript(url) == [("user", "Once upon"), ("assistant", " a time")]
    assert run_row(url, "operation", "status") == ("text_completion", COMPLETE)


# -- the end -------------------------------------------------------------------------------------------------


def test_the_end_of_a_run_stores_what_the_provider_reported(url: str) -> None:
    """Usage, finish reason, response id, model, final message and times are stored."""
    usage = UsageMetadata(input_tokens=5, output_tokens=2, total_tokens=7)
    raw = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "details": None}
    answer = AIMessage(
        "Hi",
        usage_metadata=usage,
        additional_kwargs={"refusal": None},
        response_metadata={"id": "chatcmpl-1"},
    )
    ended = result(
        "Hi", finish_reason="stop", model_name="gpt-4o-mini-2024-07-18", output={"token_usage": raw}
    )
    ended.generations[0][0].message = answer  # type: ignore[attr-defined]
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, ["H", "i"])
        history.on_llm_end(ended, run_id=run_id)
    assert_whole(url, run_id, ["H", "i"])
    assert run_row(url, "status", "finish_reason", "response_id", "response_model") == (
        COMPLETE, "stop", "chatcmpl-1", "gpt-4o-mini-2024-07-18"
    )  # fmt: skip
    counts = run_row(url, "input_tokens", "output_tokens", "total_tokens", "usage_source")
    assert counts == (5, 2, 7, "provider")
    assert json.loads(run_row(url, "usage")[0]) == raw
    started, first, end = run_row(url, "started_at", "first_token_at", "ended_at")
    assert started <= first <= end
    assert (
        run_row(url, "response_message_id") == sql(url, "SELECT id FROM messages WHERE role = 'assistant'")[0]
    )


def test_usage_is_null_when_the_provider_reports_none(url: str) -> None:
    """The columns are NULL, not 0, unless it is estimated."""
    with ChatHistoryCallback(url, estimate_usage=False) as history:
        record(history)
    assert run_row(url, "input_tokens", "usage", "usage_source") == (None, None, "none")


@pytest.mark.parametrize(
    ("reason", "output", "status"),
    [
        ("stop", {}, COMPLETE),
        ("tool_calls", {}, COMPLETE),
        ("length", {}, INCOMPLETE),
        ("content_filter", {}, INCOMPLETE),
        ("max_tokens", {}, INCOMPLETE),
        (None, {}, COMPLETE),
        (None, {"interrupted": True}, INTERRUPTED),
    ],
)
def test_the_finish_reason_decides_the_status(
    url: str, reason: str | None, output: dict[str, Any], status: str
) -> None:
    """A limit makes a run `incomplete`; a stream without the provider's end makes it `interrupted`."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, ["Hi"])
        history.on_llm_end(result("Hi", finish_reason=reason, output=output), run_id=run_id)
    assert_whole(url, run_id, ["Hi"], status)
    assert transcript(url)[-1] == ("assistant", "Hi")


@pytest.mark.parametrize(
    ("error", "status", "type", "message"),
    [
        (LookupError("gone \x00"), ERROR, "LookupError", "gone \ufdd00000"),
        (sqlite3.OperationalError("x"), ERROR, "sqlite3.OperationalError", "x"),
        (asyncio.CancelledError(), CANCELLED, None, None),
        (GeneratorExit(), CANCELLED, None, None),
        (KeyboardInterrupt(), CANCELLED, None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_or_a_cancellation_stores_the_partial_reply(
    url: str, error: BaseException, status: str, type: str | None, message: str | None
) -> None:
    """The tokens, the partial reply and the error are stored."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        say(history, run_id, ["Hel"])
        history.on_llm_error(error, run_id=run_id, response=result("Hel"))
    assert_whole(url, run_id, ["Hel"], status)
    assert run_row(url, "error_type", "error_message") == (type, message)
    assert transcript(url) == [("user", "Hi"), ("assistant", "Hel")]


def test_an_error_before_the_first_token_stores_no_reply(url: str) -> None:
    """The run has a line in `transcripts`, and there is no empty message."""
    with ChatHistoryCallback(url) as history:
        history.on_llm_error(ValueError("no"), run_id=begin(history))
        history.on_llm_error(ValueError("no"), run_id=begin(history, HumanMessage("Ho")), response=result(""))
        history.on_llm_error(ValueError("no"), run_id=uuid.uuid4())
    assert sorted(transcript(url), key=str) == [
        ("assistant", None),
        ("assistant", None),
        ("user", "Hi"),
        ("user", "Ho"),
    ]
    assert sql(url, "SELECT role FROM messages") == [("user",), ("user",)]
    assert sql(url, "SELECT DISTINCT status FROM runs") == [(ERROR,)]


def test_each_choice_of_a_response_is_a_reply_to_the_same_question(url: str) -> None:
    """Each choice is a message below the question."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        history.on_stream_frame(b"f", 0, [Delta("a", "text", "0"), Delta("b", "text", "1")], run_id=run_id)
        finish(history, run_id, "a", "b")
    assert sorted(transcript(url)) == [("assistant", "a"), ("assistant", "b"), ("user", "Hi")]
    assert sql(url, "SELECT idx, text FROM tokens") == [("0", "a"), ("1", "b")]


# -- tokens and frames ---------------------------------------------------------------------------------------


def test_frames_are_stored_byte_for_byte_with_their_deltas(url: str) -> None:
    """Deltas have kind and index, and the token hook adds nothing to what came with the frame."""
    frames = [b'data: {"a":1}\n\n', b": comment\n\n", b"data: [DONE]\n\n"]
    with ChatHistoryCallback(url) as history:
        run_id = begin(history, wire="openai.chat")
        history.on_stream_frame(frames[0], 10, [Delta("hm", REASONING), Delta("Hi")], run_id=run_id)
        history.on_llm_new_token("Hi", run_id=run_id)
        history.on_stream_frame(frames[1], 20, [], run_id=run_id)
        history.on_stream_frame(frames[2], 30, [], run_id=run_id)
        finish(history, run_id, "Hi")
    assert sql(url, "SELECT seq, at_us, kind, text FROM tokens") == [
        (0, 10, REASONING, "hm"),
        (1, 10, "text", "Hi"),
    ]
    [(data, dictionary, at_us)] = sql(url, "SELECT data, dictionary, at_us FROM frames")
    assert split(decompress(data, dictionary)) == list(zip((10, 20, 30), frames, strict=True))
    assert at_us == 10


def test_frames_are_not_stored_when_capture_is_tokens(url: str) -> None:
    """The tokens are the same, and the run has no hash of frames."""
    with ChatHistoryCallback(url, capture="tokens") as history:
        run_id = begin(history)
        history.on_stream_frame(b"data: x\n\n", 10, [Delta("Hi")], run_id=run_id)
        history.on_llm_new_token("Hi", run_id=run_id)
        finish(history, run_id, "Hi")
    assert_whole(url, run_id, ["Hi"])
    assert sql(url, "SELECT * FROM frames") == []
    assert run_row(url, "frames_sha256") == (None,)


def chunk(content: Any = "", **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content, **fields))


CALLS = [{"name": "look", "args": '{"x"', "id": "call_1", "index": 0, "type": "tool_call_chunk"},
         {"name": None, "args": ":1}", "id": None, "index": 1, "type": "tool_call_chunk"}]  # fmt: skip


@pytest.mark.parametrize(
    ("token", "given", "deltas"),
    [
        ("Hi", None, [("Hi",)]),
        ("Hi", chunk("Hi"), [("Hi",)]),
        ("", chunk(""), []),
        ("", chunk("", additional_kwargs={"reasoning_content": "hm"}), [("hm", REASONING)]),
        (
            "",
            chunk("", tool_call_chunks=CALLS),
            [
                ('{"id":"call_1","name":"look"}', TOOL_CALL, "0.0"),
                ('{"x"', TOOL_ARGS, "0.0"),
                (":1}", TOOL_ARGS, "0.1"),
            ],
        ),
        (
            [{"type": "text", "text": "Hi"}, "ho", {"type": "image", "url": "x"}],
            chunk("x"),
            [("Hi",), ("ho",), ('{"content_block":{"type":"image","url":"x"}}', OTHER, "0.0")],
        ),
        (None, None, []),
        (7, object(), []),
    ],
    ids=["text", "text chunk", "empty", "reasoning", "tool calls", "blocks", "None", "unknown"],
)
def test_a_token_of_langchain_becomes_its_deltas(token: Any, given: Any, deltas: list[Any]) -> None:
    """Models that give no frames give a token and a chunk; an empty or unknown one has no deltas."""
    assert deltas_of(token, given, SimpleNamespace(places=None)) == [Delta(*delta) for delta in deltas]


def test_tokens_are_given_by_position_or_by_name(url: str) -> None:
    """LangChain's synchronous manager passes the token by name, the asynchronous one by position."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(history)
        history.on_llm_new_token("a", run_id=run_id, parent_run_id=None, tags=[])
        history.on_llm_new_token(token="b", chunk=None, run_id=run_id)
        history.on_llm_new_token("", chunk=chunk("", tool_call_chunks=CALLS[:1]), run_id=run_id)
        finish(history, run_id, "ab")
    assert [text for (text,) in sql(url, "SELECT text FROM tokens")] == [
        "a", "b", '{"id":"call_1","name":"look"}', '{"x"'
    ]  # fmt: skip


def test_run_inline_is_true_for_every_instance() -> None:
    """It is a class attribute, because LangChain reads it three times for each event."""
    assert ChatHistoryCallback.run_inline is True
    assert "run_inline" not in vars(ChatHistoryCallback(store=MemoryStore()))


# -- any text ------------------------------------------------------------------------------------------------

TROUBLE = {
    "NUL": "a\x00b", "half a pair": "\ud83c", "the other half": "\udf88", "the escape": "\ufdd00000",
    "an emoji": "👩\u200d🚀", "a bidi override": "\u202eabc", "line separators": "\u2028\u2029\x85", "quotes": "\"'\\",
    "a megabyte": "é\x00" * 2**18 + "x" * 2**19, "nothing": "", "spaces": " \n\t ", "SQL": "'; DROP TABLE runs; --",
}  # fmt: skip


@pytest.mark.parametrize("name", TROUBLE)
def test_any_text_comes_back_equal(url: str, name: str) -> None:
    """The text is a token, a message, metadata, a tag and a conversation id; SQL shows it escaped and complete."""
    text = TROUBLE[name]
    conversation_id = f"id {text[:100]}"
    with ChatHistoryCallback(url, conversation_id=conversation_id) as history:
        run_id = begin(history, HumanMessage(text or "."), metadata={"key": text, text: 1}, tags=[text])
        say(history, run_id, ["before", text, "after"])
        finish(history, run_id, text or "-")
        other = record(history, reply="neighbour")
    assert_whole(url, run_id, ["before", text, "after"])
    assert_whole(url, other, ["neighbour"])
    shown = [content for _, content in transcript(url)]
    assert [unescape(content) for content in shown[:2]] == [text or ".", text or "-"]
    [(metadata, tags)] = sql(url, "SELECT metadata, tags FROM runs WHERE id = ?", str(run_id))
    assert unescape_json(json.loads(metadata)) == {"key": text, text: 1}
    assert unescape_json(json.loads(tags)) == [text]
    assert {unescape(found) for found in conversations(url)} == {conversation_id}


@settings(
    max_examples=settings().max_examples // 2,  # each stores a run
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(ANY_TEXT.filter(bool)), ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_any_strings_come_back_equal(
    shared: tuple[str, ChatHistoryCallback], texts: list[str], sent: str, metadata: dict[str, str]
) -> None:
    """The strings are tokens, a question with parts, a reply and metadata."""
    url, history = shared
    names = ("user_id", "thread_id", "session_id")
    metadata = {key: value for key, value in metadata.items() if key not in names and not is_secret_name(key)}
    question = HumanMessage([{"type": "text", "text": sent}, {"type": "image", "data": sent}])
    run_id = begin(history, question, metadata=metadata)
    say(history, run_id, texts)
    finish(history, run_id, "".join(texts))
    history.flush().wait(10)
    assert_whole(url, run_id, texts)
    [(parts, found)] = sql(
        url,
        "SELECT m.parts, r.metadata FROM runs r JOIN messages m ON m.id = r.prompt_message_id WHERE r.id = ?",
        str(run_id),
    )
    assert from_dict(unescape_json(json.loads(parts))) == question
    assert unescape_json(json.loads(found or "{}")) == metadata
    replies = sql(url, "SELECT content FROM messages WHERE run_id = ?", str(run_id))
    assert [unescape(content) for (content,) in replies] == (["".join(texts)] if texts else [])


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[str, ChatHistoryCallback]]:
    """One recorder for all examples of a property."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, flush_interval=0) as history:
        yield url, history


@pytest.mark.parametrize("wrong", ["\ud800", {"x": 1}, ["stop"], 7, b"\xff"], ids=repr)
def test_a_run_is_recorded_when_the_provider_sends_values_of_wrong_types(url: str, wrong: Any) -> None:
    """A wrong finish reason, model or id costs no token, and the run is `interrupted`."""
    with ChatHistoryCallback(url) as history:
        run_id = begin(
            history, metadata={"ls_provider": wrong, "ls_model_name": wrong, "user_id": wrong},
            invocation_params={"model": wrong}, input_hash=wrong, wire="openai.chat",
        )  # fmt: skip
        say(history, run_id, ["Hi"])
        ended = result(
            "Hi", finish_reason=wrong, id=wrong, model_name=wrong, output={"token_usage": {"x": 1}}
        )
        history.on_llm_end(ended, run_id=run_id)
    assert_whole(url, run_id, ["Hi"], "interrupted")
    assert transcript(url) == [("user", "Hi"), ("assistant", "Hi")]
    assert history.stats().quarantined == 0


# -- conversations -------------------------------------------------------------------------------------------


def test_each_run_opens_a_conversation_of_its_own(url: str) -> None:
    """Equal content does not join runs, and the new ids sort by time."""
    with ChatHistoryCallback(url) as history:
        for _ in range(3):
            record(history, HumanMessage("the same"))
    found = conversations(url)
    assert len(set(found)) == 3
    assert found == sorted(found)
    assert [uuid.UUID(each).version for each in found] == [7, 7, 7]


def test_a_conversation_is_named_by_argument(url: str) -> None:
    """A later recorder with the same argument continues the conversation."""
    for question in ("one", "two"):
        with ChatHistoryCallback(url, conversation_id="chat-42") as history:
            record(history, HumanMessage(question), reply=f"answer to {question}")
    assert conversations(url) == ["chat-42", "chat-42"]
    assert [content for _, content in transcript(url)] == ["one", "answer to one", "two", "answer to two"]


@pytest.mark.parametrize("key", ["conversation_id", "session_id", "thread_id"])
@pytest.mark.parametrize("value", ["chat-42", 42, uuid.UUID(int=42)], ids=repr)
def test_a_conversation_is_named_by_metadata(url: str, key: str, value: Any) -> None:
    """The key is recorder's own, LangChain's or LangGraph's; a value of any type becomes text."""
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage("one"), metadata={key: value})
        record(history, HumanMessage("two"), metadata={key: value, "more": 1})
    assert conversations(url) == [str(value)] * 2


def test_a_conversation_is_named_by_a_block(url: str) -> None:
    """The name holds inside the block only; blocks nest, and an error ends a block as usual."""
    with ChatHistoryCallback(url, conversation_id="always") as history:
        record(history)
        with history.conversation("outer") as name:
            assert name == "outer"
            record(history)
            with pytest.raises(LookupError):
                record_in_a_block_that_raises(history)
            record(history)
        record(history)
    assert conversations(url) == ["always", "outer", "inner", "outer", "always"]


def record_in_a_block_that_raises(history: ChatHistoryCallback) -> None:
    """Record a run in a block that ends with an error."""
    with history.conversation("inner"):
        record(history)
        raise LookupError


def test_blocks_of_concurrent_tasks_do_not_mix(url: str) -> None:
    """Each task records into the conversation of its own block."""

    async def story(name: str) -> None:
        with history.conversation(name):
            for _ in range(3):
                await asyncio.sleep(0)
                record(history, HumanMessage(name))

    async def both() -> None:
        await asyncio.gather(story("one"), story("two"))

    with ChatHistoryCallback(url) as history:
        asyncio.run(both())
    found = sql(url, "SELECT DISTINCT conversation_id, content FROM messages WHERE role = 'user' ORDER BY 1")
    assert found == [("one", "one"), ("two", "two")]


def test_metadata_comes_before_the_block_and_the_block_before_the_argument(url: str) -> None:
    """Of several keys in the metadata, `conversation_id` comes first."""
    with ChatHistoryCallback(url, conversation_id="argument") as history:
        with history.conversation("block"):
            record(
                history, metadata={"thread_id": "thread", "conversation_id": "ours", "session_id": "session"}
            )
            record(history, metadata={"thread_id": "thread", "session_id": "session"})
            record(history, metadata={"thread_id": "", "session_id": None})
        record(history)
    assert conversations(url) == ["ours", "session", "block", "argument"]


def test_a_conversation_id_of_more_than_255_characters_is_refused(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As an argument it raises; from metadata it is replaced by a new id and logged."""
    longest, longer = "x" * 255, "x" * 256
    with pytest.raises(ConfigError, match=r"has 256 characters and the limit is 255"):
        ChatHistoryCallback(store=MemoryStore(), conversation_id=longer)
    with ChatHistoryCallback(url, conversation_id=longest) as history:
        with pytest.raises(ConfigError, match="has 256 characters"), history.conversation(longer):
            pass
        record(history)
        record(history, metadata={"thread_id": longer})
        record(history, metadata={"thread_id": longest})
    found = conversations(url)
    assert (found[0], found[2]) == (longest, longest)
    assert uuid.UUID(found[1]).version == 7
    assert caplog.messages == ["A conversation id of 256 characters was replaced by a new one"]


@pytest.mark.parametrize("bad", ["", 7, None], ids=repr)
def test_a_block_raises_when_the_conversation_id_is_no_text(bad: Any) -> None:
    """`conversation` raises the ConfigError when the block begins."""
    history = ChatHistoryCallback(store=MemoryStore())
    with pytest.raises(ConfigError, match="conversation_id"), history.conversation(bad):
        pass


def test_child_runs_share_a_conversation(url: str) -> None:
    """Runs of one parent share a conversation, runs of another parent do not, and metadata comes first."""
    chain, other = uuid.uuid4(), uuid.uuid4()
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage("one"), parent_run_id=chain)
        record(history, HumanMessage("two"), parent_run_id=chain)
        record(history, HumanMessage("three"), parent_run_id=other)
        record(history, HumanMessage("four"), parent_run_id=chain, metadata={"thread_id": "named"})
    first, second, third, fourth = conversations(url)
    assert first == second != third
    assert fourth == "named"
    assert sql(url, "SELECT count(*) FROM runs WHERE parent_run_id = ?", str(chain)) == [(3,)]


def test_children_that_begin_at_once_share_a_conversation(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one child gets its conversation, another child of the same parent begins."""
    chain = uuid.uuid4()
    others = iter([chain])

    def meanwhile() -> str:
        for parent in others:
            record(history, HumanMessage("other"), parent_run_id=parent)
        return str(uuid.uuid4())

    with ChatHistoryCallback(url) as history:
        monkeypatch.setattr("recorder.recording.conversation_naming.new_id", meanwhile)
        record(history, HumanMessage("one"), parent_run_id=chain)
    assert len(set(conversations(url))) == 1


def test_messages_that_are_sent_again_each_turn_are_stored_once(url: str) -> None:
    """The application sends them in three forms: as dicts, as message objects and with other white space."""
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
    with ChatHistoryCallback(url, conversation_id="c") as history:
        sent: list[Any] = [{"role": "user", "content": "weather?"}]
        reply = AIMessage("", tool_calls=[{"name": "look", "args": {"x": 1}, "id": "call_1"}])
        run_id = begin(history, *sent)
        ended = result("")
        ended.generations[0][0].message = reply  # type: ignore[attr-defined]
        history.on_llm_end(ended, run_id=run_id)
        sent += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        sent += [{"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]
        record(history, *sent, reply="It is sunny. ")
        sent += [AIMessage("It is sunny."), HumanMessage("Thanks")]
        record(history, *sent, reply="Welcome")
    assert [content for _, content in transcript(url)] == [
        "weather?", "", "sunny", "It is sunny. ", "Thanks", "Welcome"
    ]  # fmt: skip


def test_an_edit_and_a_regeneration_are_branches(url: str) -> None:
    """Messages that differ begin a branch, and messages that are the same are stored once."""
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("a"), reply="b")
        record(history, HumanMessage("a"), reply="B")
        record(history, HumanMessage("a"), AIMessage("b"), HumanMessage("c"), reply="d")
        record(history, HumanMessage("a"), AIMessage("b"), HumanMessage("C"), reply="D")
    found = sql(url, "SELECT position, branch, content FROM transcripts ORDER BY position, created_at")
    assert found == [
        (0, 1, "a"),
        (1, 1, "b"),
        (1, 2, "B"),
        (2, 1, "c"),
        (2, 2, "C"),
        (3, 1, "d"),
        (3, 1, "D"),
    ]


def test_a_message_that_is_nested_too_deep_disturbs_no_other_run(url: str) -> None:
    """The callback does not raise, and each token is counted as committed, quarantined or dropped."""
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with ChatHistoryCallback(url) as history:
        run_id = begin(history, HumanMessage([{"type": "file", "data": deep}]))
        say(history, run_id, ["a"])
        finish(history, run_id, "a")
        good = record(history, reply="fine")
    assert_whole(url, good, ["fine"])
    stats = history.stats()
    assert stats.accepted == stats.committed + stats.quarantined + stats.dropped == 2


# -- with a model --------------------------------------------------------------------------------------------


def chat(provider: LoopbackProvider, history: ChatHistoryCallback, **options: Any) -> ChatOpenAI:
    settings = {"model": "gpt-4o-mini", "api_key": "any", "max_retries": 0, **options}
    return ChatOpenAI(base_url=provider.base_url, callbacks=[history], **settings)


def test_a_whole_conversation_with_a_model(url: str) -> None:
    """A model streams through the SDK and a socket; frames are stored byte for byte and each message once."""
    with (
        LoopbackProvider.song(tokens=50) as provider,
        ChatHistoryCallback(url, conversation_id="c") as history,
    ):
        model = chat(provider, history)
        sent: list[Any] = [HumanMessage("Sing.")]
        for _ in range(3):
            answer = AIMessageChunk("")
            for piece in model.stream(sent):
                answer += piece
            sent += [answer.to_message(), HumanMessage("Again!")]
    assert [content for _, content in transcript(url)] == [message.text for message in sent[:-1]]
    assert sql(url, "SELECT DISTINCT status, usage_source, provider_name, wire FROM runs") == [
        (COMPLETE, "provider", "openai", "openai.chat")
    ]  # fmt: skip
    for (run_id,) in sql(url, "SELECT id FROM runs"):
        found = stored(url, run_id)
        assert "".join(found.texts.values()) == sent[1].text
        body = b"".join(
            frame
            for row in sql(url, "SELECT data, dictionary FROM frames WHERE run_id = ? ORDER BY seq", run_id)
            for _, frame in split(decompress(*row))
        )
        assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stream_that_the_application_leaves_is_cancelled(url: str, way: str) -> None:
    """The partial reply is stored."""

    async def story(model: ChatOpenAI) -> None:
        stream = model.astream("Sing.")
        async for piece in stream:
            if piece.content:
                break
        await stream.aclose()  # type: ignore[attr-defined]

    with LoopbackProvider.song() as provider, ChatHistoryCallback(url) as history:
        model = chat(provider, history)
        if way == "async":
            asyncio.run(story(model))
        else:
            stream = model.stream("Sing.")
            next(piece for piece in stream if piece.content)
            stream.close()  # type: ignore[attr-defined]
    assert run_row(url, "status") == (CANCELLED,)
    [(role, content)] = transcript(url)[1:]
    assert (role, content[:5]) == ("assistant", "Verse")


def test_a_stream_without_the_providers_end_stores_its_partial_reply(url: str) -> None:
    """The run has the status `error` or `interrupted`, and its hash is that of the stored tokens."""
    frames = openai_chat_frames([["Hel", "lo", " there"]])
    answers = Answer(frames=frames, cut_after=3)
    with LoopbackProvider(answers) as provider, ChatHistoryCallback(url) as history:
        stream = chat(provider, history).stream("Hi")
        with pytest.raises(openai.APIError):
            list(stream)
    status, run_id = run_row(url, "status", "id")
    assert status in (ERROR, INTERRUPTED)
    found = stored(url, run_id)
    assert_whole(url, run_id, list(found.texts.values()), status)
    assert transcript(url)[-1] == ("assistant", "".join(found.texts.values()))


def test_a_request_that_fails_is_a_run_with_an_error(url: str) -> None:
    """After HTTP 429 the question and the error are stored."""
    with LoopbackProvider(Answer.error(429)) as provider, ChatHistoryCallback(url) as history:
        model = chat(provider, history)
        with pytest.raises(openai.RateLimitError):
            model.invoke("Hi")
    status, kind, message = run_row(url, "status", "error_type", "error_message")
    assert (status, kind) == (ERROR, "openai.RateLimitError")
    assert "429" in message
    assert transcript(url) == [("user", "Hi"), ("assistant", None)]


def test_nothing_is_logged_when_all_goes_well(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A run that is recorded without an error logs nothing at any level."""
    with caplog.at_level(logging.DEBUG, "recorder"), ChatHistoryCallback(url) as history:
        record(history)
    assert caplog.messages == []


def test_the_view_chathistory_can_be_read_while_a_history_is_open(url: str) -> None:
    """Another connection reads the view that the documentation names."""
    with ChatHistoryCallback(url) as history:
        record(history, HumanMessage("Hi"), reply="Hello")
        history.flush().wait(10)
        found = sql(url, "SELECT role, content FROM chathistory ORDER BY id")
    assert found == [("user", "Hi"), ("assistant", "Hello")]


def test_a_message_of_an_unknown_type_is_stored_as_text(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run is recorded, and the log has a warning."""
    with ChatHistoryCallback(url) as history:
        run_id = uuid.uuid4()
        history.on_chat_model_start({}, [[HumanMessage("Hi"), 42]], run_id=run_id)
        finish(history, run_id, "Hello")
    assert transcript(url) == [("user", "Hi"), ("unknown", "42"), ("assistant", "Hello")]
    assert "stored as text" in caplog.text


def test_a_message_is_stored_as_it_was_sent() -> None:
    """The application changes the blocks of the message before the writer serializes them."""
    changed = threading.Event()

    class Later(MemoryStore):
        async def open(self) -> None:
            await asyncio.to_thread(changed.wait)

    blocks, store = [{"type": "text", "text": "before"}], Later()
    with ChatHistoryCallback(store=store, open_timeout=0.01) as history:
        run_id = uuid.uuid4()
        history.on_chat_model_start({}, [[HumanMessage(blocks)]], run_id=run_id)
        blocks[0]["text"] = "after"
        blocks.append({"type": "text", "text": "!"})
        changed.set()
        finish(history, run_id, "Hello")
    assert {row.content for row in store.messages.values()} == {"before", "Hello"}
