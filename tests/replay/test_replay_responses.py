"""OpenAI's Responses client over a recording receives the recorded events and sends no request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from recorder.replay import NotRecorded, Replay
from recorder.testing import (
    LoopbackProvider,
    openai_responses_body,
    openai_responses_error_frame,
    openai_responses_frames,
)
from tests.chatting import chat, history_at
from tests.encoded import openai_client, serving
from tests.genuine import MISSING, Stream, name_of, responses_streams
from tests.oracle import sql
from tests.responses import fields_of_response, record

STREAMS = responses_streams()
each = pytest.mark.parametrize(
    "stream",
    STREAMS or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")],
    ids=name_of if STREAMS else None,
)
#: A question in two forms: of this format, and of chat completions.
ASK: dict[str, Any] = {"model": "gpt-4o", "input": "Hi"}
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'}


def client(replay: Replay, **options: Any) -> openai.OpenAI:
    """Return OpenAI's SDK over a recording."""
    return openai.OpenAI(api_key="any", max_retries=0, http_client=replay.http_client(**options))


def final(sdk: openai.OpenAI, request: dict[str, Any]) -> Any:
    """Return the final response of a stream."""
    with sdk.responses.stream(**request) as stream:
        return stream.get_final_response()


def recording(folder: Path, body: bytes, request: dict[str, Any] = ASK, **options: Any) -> str:
    """Record one response and return the URL of the database."""
    url = f"sqlite:///{folder / 'history.db'}"
    with history_at(url, **options) as history:
        record(history, request, body)
    return url


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("capture", ["wire", "tokens"])
@each
def test_a_replayed_stream_equals_the_live_one(stream: Stream, capture: str, tmp_path: Path) -> None:
    """From frames the events are the same; from tokens the response is."""
    request = {key: value for key, value in (stream.request or {}).items() if key != "stream"}
    url = recording(tmp_path, stream.body, request, capture=capture)
    with serving(stream.body) as provider, openai_client(provider) as live:
        events = [event.to_dict() for event in live.responses.create(**request, stream=True)]
        expected = fields_of_response(final(live, request))
    with Replay(url) as replay:
        found = client(replay, allow_playback_repeats=True)
        if capture == "wire":
            assert [event.to_dict() for event in found.responses.create(**request, stream=True)] == events
        assert fields_of_response(final(found, request)) == expected | ({"status": "completed"})
        complete = found.responses.create(**request)
    assert fields_of_response(complete) == expected


def test_an_answer_that_was_not_streamed_is_replayed_in_both_forms(tmp_path: Path) -> None:
    """The recorded body as it is, and as a stream."""
    body = openai_responses_body(["It is", " warm."], reasoning=["Hm."], tool_calls=[TOOL])
    url = recording(tmp_path, body)
    with Replay(url) as replay:
        found = client(replay, allow_playback_repeats=True)
        complete, streamed = found.responses.create(**ASK), final(found, ASK)
    assert fields_of_response(complete) == fields_of_response(streamed)
    assert complete.output_text == "It is warm."


def test_asynchronous_clients_read_a_recording(tmp_path: Path) -> None:
    """The helper on an event loop."""
    url = recording(tmp_path, b"".join(openai_responses_frames(["Hello", " there!"])))

    async def main(replay: Replay) -> str:
        sdk = openai.AsyncOpenAI(api_key="any", http_client=replay.http_async_client())
        async with sdk.responses.stream(**ASK) as stream:
            return (await stream.get_final_response()).output_text

    with Replay(url) as replay:
        assert asyncio.run(main(replay)) == "Hello there!"


def test_a_run_of_another_format_answers_the_responses_client(tmp_path: Path) -> None:
    """And a run of this format answers the chat client, if only the messages must be equal."""
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    with LoopbackProvider("The water sparkles.") as provider, history_at(url) as history:
        chat(provider, callbacks=[history]).invoke("Hi")
    with Replay(url) as replay:
        assert final(client(replay, match_on=("messages",)), ASK).output_text == "The water sparkles."
    url = recording(tmp_path, b"".join(openai_responses_frames(["The water is still."], reasoning=["Hm."])))
    with Replay(url) as replay:
        found = client(replay, match_on=("messages",)).chat.completions.create(**CHAT)
    assert found.choices[0].message.content == "The water is still."
    assert found.usage
    assert found.usage.completion_tokens == 2


def test_a_request_is_matched_by_its_messages_and_instructions(tmp_path: Path) -> None:
    """The form of the input may differ; other instructions are another request."""
    request = {**ASK, "instructions": "Be brief."}
    url = recording(tmp_path, b"".join(openai_responses_frames(["Hello"])), request)
    content = [{"type": "input_text", "text": "Hi"}]
    same: dict[str, Any] = {**request, "input": [{"role": "user", "content": content}]}
    with Replay(url) as replay:
        found = client(replay, ignore=("temperature",), allow_playback_repeats=True)
        assert found.responses.create(**same, temperature=0.5).output_text == "Hello"
        with pytest.raises(NotRecorded, match=r"Be brief\."):
            found.responses.create(**{**same, "instructions": "Be long."})


def test_a_conversation_that_is_sent_back_is_one_branch(tmp_path: Path) -> None:
    """The items of the response are the recorded reply, so nothing is stored twice."""
    url = f"sqlite:///{tmp_path / 'history.db'}"
    body = b"".join(openai_responses_frames(["Let me see."], reasoning=["Hm."], tool_calls=[TOOL]))
    with (
        history_at(url) as history,
        history.conversation("c"),
        serving(body) as provider,
        openai_client(provider) as live,
    ):
        record(history, ASK, body)
        output = [item.to_dict() for item in final(live, ASK).output]
        result = {"type": "function_call_output", "call_id": "call_1", "output": "warm"}
        request = {**ASK, "input": [{"role": "user", "content": "Hi"}, *output, result]}
        record(history, request, b"".join(openai_responses_frames(["It is warm."])))
    rows = sql(url, "SELECT role, content, position FROM messages ORDER BY position, created_at")
    assert rows == [
        ("user", "Hi", 0),
        ("assistant", "Let me see.", 1),
        ("tool", "warm", 2),
        ("assistant", "It is warm.", 3),
    ]


@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_a_recorded_error_is_raised_by_the_sdk(capture: str, tmp_path: Path) -> None:
    """The text before it is received."""
    frames = [*openai_responses_frames(["Hello"])[:5], openai_responses_error_frame("no memory")]
    url = recording(tmp_path, b"".join(frames), capture=capture)
    texts: list[str] = []
    with Replay(url) as replay:
        events = client(replay).responses.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="no memory"):
            texts.extend(event.delta for event in events if event.type == "response.output_text.delta")
    assert texts == ["Hello"]


def test_an_incomplete_response_is_replayed_as_incomplete(tmp_path: Path) -> None:
    """The run has this status, too."""
    url = recording(
        tmp_path, b"".join(openai_responses_frames(["Hi"], incomplete="max_output_tokens")), capture="tokens"
    )
    assert sql(url, "SELECT status, finish_reason FROM runs") == [("incomplete", "max_output_tokens")]
    with Replay(url) as replay:
        *_, last = client(replay).responses.create(**ASK, stream=True)
    assert (last.type, last.response.incomplete_details.reason) == (
        "response.incomplete",
        "max_output_tokens",
    )


def test_a_background_answer_that_goes_on_is_not_complete(tmp_path: Path) -> None:
    """The stream that continues it has the rest, under the same id of the response."""
    frames = openai_responses_frames(["Hello", " there!"], id="resp_1")
    url = f"sqlite:///{tmp_path / 'history.db'}"
    with history_at(url) as history:
        record(
            history,
            {**ASK, "background": True},
            b'{"id":"resp_1","object":"response","status":"queued","output":[]}',
        )
        record(history, {**ASK, "background": True, "stream": True}, b"".join(frames[:5]))
        record(history, {"stream": True, "starting_after": 4}, b"".join(frames[5:]))
    rows = sql(url, "SELECT status, response_id, finish_reason FROM runs ORDER BY started_at")
    assert rows == [
        ("interrupted", "resp_1", None), ("interrupted", "resp_1", None), ("complete", "resp_1", "stop"),
    ]  # fmt: skip
    texts = sql(url, "SELECT text FROM tokens WHERE kind = 'text' ORDER BY run_id, seq")
    assert sorted(text for (text,) in texts) == [" there!", "Hello"]
