"""One run without I/O: it takes bytes, returns chunks and calls its handlers."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.core.waitable import Wait
from recorder.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from recorder.runs.chat_run import ChatRun, Request
from recorder.testing import openai_chat_body, openai_chat_frames, openai_error_frame
from recorder.wire.deltas import Delta
from recorder.wire.openai.chat import OpenAIChat
from tests.chatting import Log, event

FRAMES = openai_chat_frames(["Hello", "!"], id="chatcmpl-1")


class Frames(BaseCallbackHandler):
    """A handler that takes its tokens from frames."""

    tokens_from_frames = True

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.deltas: list[Delta] = []
        self.at_us: list[int] = []
        self.tokens: list[str] = []

    def on_stream_frame(self, frame: bytes, at_us: int, deltas: Any, *, run_id: Any) -> None:
        self.frames.append(frame)
        self.deltas += deltas
        self.at_us.append(at_us)

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


class Refused(Exception):
    """An error as an SDK would raise it."""


def started_run(*handlers: Any, stream: bool = True, **fields: Any) -> ChatRun:
    """Return a run that has begun."""
    request = Request(
        input="Hi",
        serialized={"name": "model"},
        provider_name="openai",
        messages=fields.pop("messages", [HumanMessage("Hi")]),
        body={"model": "gpt-4o"},
        stream=stream,
        handlers=list(handlers),
        name="model",
        tags=["t"],
        metadata={"m": 1},
        invocation_params={"model": "gpt-4o"},
        input_hash="abc",
        **fields,
    )
    run = ChatRun(request, OpenAIChat(), lambda error, http_response: Refused(error, http_response))
    run.start()
    return run


def chunks_of(*frames: bytes) -> list[AIMessageChunk]:
    """Return the chunks of these frames, without the last one."""
    run = started_run()
    return [chunk for frame in frames for chunk in run.feed(frame)]


def delta(**fields: Any) -> bytes:
    """Return an event whose first choice has this delta."""
    return event(choices=[{"index": 0, "delta": fields, "finish_reason": None}])


# -- chunks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (delta(content="Hello"), {"content": "Hello"}),
        (delta(role="assistant", content=""), {"content": ""}),
        (delta(reasoning_content="Hm"), {"additional_kwargs": {"reasoning_content": "Hm"}}),
        (delta(reasoning="Hm"), {"additional_kwargs": {"reasoning_content": "Hm"}}),
        (delta(refusal="No"), {"additional_kwargs": {"refusal": "No"}}),
        (delta(annotations=[{"url": "u"}]), {"additional_kwargs": {"annotations": [{"url": "u"}]}}),
        (delta(audio={"id": "a"}), {"additional_kwargs": {"audio": {"id": "a"}}}),
        (delta(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), {"content": "ab"}),
        (
            delta(content="a", reasoning="b"),
            {"content": "a", "additional_kwargs": {"reasoning_content": "b"}},
        ),
        (
            delta(tool_calls=[{"index": 2, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}]),
            {
                "tool_call_chunks": [
                    {"name": "f", "args": '{"a"', "id": "c", "index": 2, "type": "tool_call_chunk"}
                ]
            },
        ),
        (
            delta(function_call={"name": "f", "arguments": "{}"}),
            {"additional_kwargs": {"function_call": {"name": "f", "arguments": "{}"}}},
        ),
    ],
    ids=lambda value: value[60:110].decode() if isinstance(value, bytes) else "",
)
def test_an_event_becomes_a_chunk(frame: bytes, expected: dict[str, Any]) -> None:
    """Content is where LangChain has it; data without a field of its own is in `additional_kwargs`."""
    (chunk,) = chunks_of(frame)
    fields = {name: getattr(chunk, name) for name in ("content", "additional_kwargs", "tool_call_chunks")}
    assert fields == {"content": "", "additional_kwargs": {}, "tool_call_chunks": [], **expected}
    assert chunk.usage_metadata is None


def test_the_last_chunks_describe_the_response() -> None:
    """One has finish reason, model and id, one has the usage, and the last one has the position `last`."""
    run = started_run()
    *_, finish, usage = [chunk for frame in FRAMES for chunk in run.feed(frame)]
    (last,) = run.rest()
    assert finish.response_metadata["finish_reason"] == "stop"
    assert finish.response_metadata["model_name"] == "gpt-4o-mini-2024-07-18"
    assert (finish.response_metadata["id"], finish.response_metadata["model_provider"]) == (
        "chatcmpl-1",
        "openai",
    )
    assert usage.usage_metadata is not None
    assert (usage.usage_metadata["output_tokens"], usage.response_metadata) == (2, {})
    assert (last.chunk_position, last.content, last.usage_metadata) == ("last", "", None)


def test_text_finish_reason_and_usage_may_come_in_one_event() -> None:
    """The chunk has all three."""
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    (chunk,) = chunks_of(event(choices=[choice], usage=usage))
    assert chunk.content == "Hi"
    assert chunk.response_metadata["finish_reason"] == "stop"
    assert chunk.usage_metadata == {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}


def test_growing_usage_adds_up_to_the_last_one() -> None:
    """Some providers send the usage so far in every event; the sum of the chunks counts it once."""
    details = {"completion_tokens_details": {"reasoning_tokens": 1}}
    usages = [
        {"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n, **details} for n in (1, 2, 2, 4)
    ]
    chunks = chunks_of(*[event("a", usage=usage) for usage in usages])
    answer = chunks[0] + chunks[1:]
    assert answer.usage_metadata == {
        "input_tokens": 5, "output_tokens": 4, "total_tokens": 9, "output_token_details": {"reasoning": 1}
    }  # fmt: skip
    assert [chunk.usage_metadata is None for chunk in chunks] == [False, False, True, False]


@pytest.mark.parametrize(
    "frame",
    [b": comment\n\n", b"\n\n", b"data: [DONE]\n\n", b"event: ping\n\n", b'data: {"choices": []}\n\n'],
    ids=["comment", "blank", "done", "ping", "empty"],
)
def test_an_event_without_content_makes_no_chunk(frame: bytes) -> None:
    """A second event that only has the role makes none either."""
    assert chunks_of(frame) == []
    assert len(chunks_of(delta(role="assistant"), delta(role="assistant"))) == 1


def test_choices_after_the_first_make_no_chunks() -> None:
    """They are in the frames and in the result."""
    frames = Frames()
    run = started_run(frames)
    body = openai_chat_frames([["a"], ["b"]], n=2)
    text = "".join(chunk.text for frame in body for chunk in run.feed(frame))
    run.finish()
    assert text == "a"
    assert frames.frames == body
    assert [choice.text for choice in run.result().generations[0]] == ["a", "b"]


def test_an_error_event_is_raised_after_its_frame_was_reported() -> None:
    """The exception gets the error's body and the HTTP response."""
    frames, error = Frames(), openai_error_frame("Overloaded", "server_error", "busy")
    run = started_run(frames)
    run.http_response = "the response"
    assert [chunk.content for chunk in run.feed(FRAMES[1])] == ["Hello"]
    with pytest.raises(Refused) as caught:
        list(run.feed(error + FRAMES[2]))
    assert caught.value.args == (
        {"message": "Overloaded", "type": "server_error", "param": None, "code": "busy"}, "the response"
    )  # fmt: skip
    assert frames.frames == [FRAMES[1], error]


# -- handlers --------------------------------------------------------------------------------------------------


def test_a_handler_that_takes_tokens_from_frames_gets_no_tokens() -> None:
    """It gets deltas with their frames and times, and other handlers get tokens."""
    frames, log = Frames(), Log()
    run = started_run(frames, log)
    for frame in FRAMES:
        list(run.feed(frame))
    assert frames.frames == FRAMES
    assert [text for text, kind, idx in frames.deltas] == ["Hello", "!"]
    assert frames.tokens == []
    assert [token for token in log.tokens if token] == ["Hello", "!"]
    assert frames.at_us == sorted(frames.at_us)
    assert 0 <= frames.at_us[0] < 60_000_000


def test_the_new_messages_are_those_after_the_last_reply() -> None:
    """Clients send the whole history, and only messages after the last reply are new."""
    log = Log()
    history = [SystemMessage("s"), HumanMessage("1"), AIMessage("2"), HumanMessage("3"), HumanMessage("4")]
    started_run(log, messages=history)
    assert [args[0].content for args, _ in log.calls_of("on_chat_new_message")] == ["3", "4"]


def test_a_run_has_one_end() -> None:
    """After `finish` or `fail`, a later `fail` calls no handler."""
    log = Log()
    run = started_run(log)
    run.finish()
    run.fail(ValueError("late"))
    assert log.names[-1] == "llm_end"
    log = Log()
    run = started_run(log)
    run.fail(ValueError("first"))
    run.fail(ValueError("second"))
    assert [str(args[0]) for args, _ in log.calls_of("on_llm_error")] == ["first"]


def test_the_other_handlers_get_an_error_when_one_raises_at_the_end() -> None:
    """No handler misses the end of a run."""

    class Strict(BaseCallbackHandler):
        raise_error = True

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            raise ValueError("not today")

    log = Log()
    run = started_run(Strict(), log)
    with pytest.raises(ValueError, match="not today") as caught:
        run.finish()
    run.fail(caught.value)
    assert log.names[-1] == "llm_error"


def test_handlers_receive_an_error_with_the_partial_answer() -> None:
    """It is an `LLMResult`, in which `interrupted` is set."""
    log = Log()
    run = started_run(log)
    list(run.feed(b"".join(FRAMES[:2])))
    run.fail(ConnectionError("gone"))
    (((error,), kwargs),) = log.calls_of("on_llm_error")
    assert isinstance(error, ConnectionError)
    assert kwargs["response"].generations[0][0].text == "Hello"
    assert kwargs["response"].llm_output["interrupted"] is True
    assert kwargs["tags"] == ["t"]


def test_an_incomplete_frame_is_reported_as_bytes() -> None:
    """The joined frames are the received bytes; frames that the caller did not read are not reported."""
    frames = Frames()
    run = started_run(frames)
    list(run.feed(FRAMES[1] + FRAMES[2][:9]))
    run.fail(ConnectionError("cut"))
    assert b"".join(frames.frames) == FRAMES[1] + FRAMES[2][:9]
    assert [text for text, *_ in frames.deltas] == ["Hello"]

    frames = Frames()
    run = started_run(frames)
    next(run.feed(FRAMES[1] + FRAMES[2] + FRAMES[3][:9]))
    run.fail(GeneratorExit())
    assert frames.frames == [FRAMES[1]]


def test_bytes_after_the_terminator_are_a_frame_only() -> None:
    """They make no token, no chunk and no error."""
    frames = Frames()
    run = started_run(frames)
    late = [event("late"), openai_error_frame("late")]
    list(run.feed(b"".join([*FRAMES, *late])))
    assert frames.frames == [*FRAMES, *late]
    assert [text for text, *_ in frames.deltas] == ["Hello", "!"]
    assert run.message().content == "Hello!"


def test_awaitables_of_handlers_are_collected_in_order() -> None:
    """The caller waits for them before it continues."""
    waits: list[Wait[None]] = [Wait() for _ in range(9)]
    given = iter(waits)

    class Asks(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> Wait[None]:
            return next(given)

        def on_stream_frame(self, frame: bytes, at_us: int, deltas: Any, *, run_id: Any) -> Wait[None]:
            return next(given)

    run = started_run(Asks())
    list(run.feed(FRAMES[1] + b": comment\n\n" + FRAMES[2]))
    assert [pending.thing for pending in run.pending or ()] == waits[:5]


# -- the result ------------------------------------------------------------------------------------------------


def test_a_response_without_a_stream_is_one_frame() -> None:
    """Its usage is in the message, as in LangChain."""
    frames, body = Frames(), b"\n \n" + openai_chat_body(["Hello", "!"])
    run = started_run(frames, stream=False)
    run.feed_complete(body, None)
    assert frames.frames == [body]
    assert [text for text, *_ in frames.deltas] == ["Hello!"]
    assert run.message().response_metadata["token_usage"]["completion_tokens"] == 2
    assert run.reply.terminated


def test_each_choice_has_an_id_of_its_own() -> None:
    """The first choice has the id of the chunks."""
    run = started_run()
    assert run.message(0).id == f"run-{run.request.run_id}"
    assert run.message(1).id == f"run-{run.request.run_id}-1"


def test_the_result_of_a_run_has_generations_usage_and_run_id() -> None:
    """`llm_output` has the usage, the model and the response's id."""
    run = started_run()
    for frame in FRAMES:
        list(run.feed(frame))
    result = run.result()
    ((generation,),) = result.generations
    assert generation.text == "Hello!"
    assert generation.generation_info is not None
    assert generation.generation_info.keys() == {
        "finish_reason",
        "model_name",
        "system_fingerprint",
        "service_tier",
    }
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["completion_tokens"] == 2
    assert (result.llm_output["model_name"], result.llm_output["id"]) == (
        "gpt-4o-mini-2024-07-18",
        "chatcmpl-1",
    )
    assert result.run is not None
    assert [info.run_id for info in result.run] == [run.request.run_id]
