"""The real SDK reads encoded Responses as it reads the provider's own bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import orjson
import pytest

from recorder.core.json import dumps
from recorder.errors import StoreError
from recorder.testing import Answer, LoopbackProvider
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    SIGNATURE,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
)
from recorder.wire.encode import body
from recorder.wire.openai import encode_responses
from recorder.wire.recorded_run import ANTHROPIC, CHAT, RESPONSES, Failure, Recorded
from recorder.wire.sse import parse
from tests.encoded import (
    accumulated_by_responses,
    body_of,
    genuine,
    openai_client,
    read,
    run_of,
    serving,
    timed,
    with_finish_reason,
)
from tests.genuine import MISSING, Stream, name_of
from tests.responses import fields_of_response
from tests.wire.test_encode_sdks import CHAT_DELTAS, CHAT_RUN, MESSAGE_DELTAS, MESSAGE_RUN
from tests.wires import frames_of

STREAMS = genuine(RESPONSES)
each = pytest.mark.parametrize(
    "stream",
    STREAMS or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")],
    ids=name_of if STREAMS else None,
)
ASK: dict[str, Any] = {"model": "m", "input": "Hi"}
SEARCH = {"type": "web_search_call", "id": "ws", "action": {"query": "x"}}
RUN = Recorded(wire=RESPONSES, response_id="resp_1", model="gpt-5", created=7, finish_reasons={0: "stop"})


@pytest.mark.parametrize(
    ("run", "deltas"), [(CHAT_RUN, CHAT_DELTAS), (MESSAGE_RUN, MESSAGE_DELTAS)], ids=["chat", "message"]
)
def test_the_helper_reads_runs_of_other_providers(run: Recorded, deltas: list[Delta]) -> None:
    """It reads text, reasoning, calls and usage; the body that is not streamed is the same response."""
    streamed = accumulated_by_responses(body_of(RESPONSES, run, deltas))
    with (
        LoopbackProvider(Answer(body=body(RESPONSES, run, timed(deltas)))) as provider,
        openai_client(provider) as client,
    ):
        complete = client.responses.create(**ASK)
    for found in (streamed, complete):
        fields = fields_of_response(found)
        assert (fields["text"], fields["reasoning"], fields["id"]) == (
            "It is warm.",
            "Let me see.",
            run.response_id,
        )
        assert [call[1:] for call in fields["calls"]] == [("weather", '{"city":"Rome"}'), ("time", "")]
        assert fields["usage"] == {
            "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 14,
        }  # fmt: skip
        assert (found.status, found.created_at, found.model) == ("completed", run.created, run.model)
    cited = [citation["url"] for citation in fields_of_response(streamed)["citations"]]
    assert cited == (["https://a"] if run.wire == ANTHROPIC else [])


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@each
def test_a_genuine_run_is_read_as_it_was_sent(stream: Stream) -> None:
    """The encoded tokens give the SDK the same text, reasoning, calls, citations, items and usage."""
    deltas, reply = read(RESPONSES, stream.body)
    again = body_of(RESPONSES, run_of(RESPONSES, reply), deltas)
    assert fields_of_response(accumulated_by_responses(again)) == fields_of_response(
        accumulated_by_responses(stream.body)
    )
    assert read(RESPONSES, again)[0] == deltas


@each
def test_the_events_are_those_of_the_provider(stream: Stream) -> None:
    """Each event has a type that the provider sent, but for progress; they are numbered."""
    deltas, reply = read(RESPONSES, stream.body)
    found = [
        orjson.loads(parse(frame).data or b"")
        for frame in frames_of([body_of(RESPONSES, run_of(RESPONSES, reply), deltas)])
    ]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    sent = {parse(frame).name for frame in frames_of([stream.body])}
    more = {"response.reasoning_summary_text.delta", "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.added", "response.reasoning_summary_part.done"}  # fmt: skip
    assert {event["type"] for event in found} <= sent | (more if stream.provider == "deepseek" else set())


def test_an_asynchronous_client_reads_the_stream() -> None:
    """The helper on an event loop."""

    async def main(provider: LoopbackProvider) -> Any:
        async with (
            openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client,
            client.responses.stream(**ASK) as stream,
        ):
            return await stream.get_final_response()

    with serving(body_of(RESPONSES, CHAT_RUN, CHAT_DELTAS)) as provider:
        assert asyncio.run(main(provider)).output_text == "It is warm."


def events_of(run: Recorded, deltas: list[Delta]) -> list[Any]:
    """Return the events that the SDK yields."""
    with serving(body_of(RESPONSES, run, deltas)) as provider, openai_client(provider) as client:
        return list(client.responses.create(**ASK, stream=True))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("length", "max_output_tokens"), ("max_tokens", "max_output_tokens"), ("content_filter", "content_filter"),
        ("refusal", "content_filter"), ("max_output_tokens", "max_output_tokens"), ("incomplete", None),
    ],
)  # fmt: skip
def test_a_limit_makes_the_response_incomplete(reason: str, expected: str | None) -> None:
    """The reason is that of this format; a client of another format gets its own word."""
    last = events_of(with_finish_reason(CHAT_RUN, reason), [Delta("Hi")])[-1]
    assert (last.type, last.response.status, last.response.output_text) == (
        "response.incomplete",
        "incomplete",
        "Hi",
    )
    assert (last.response.incomplete_details and last.response.incomplete_details.reason) == expected


def test_the_finish_reasons_of_this_format_have_words_in_the_others() -> None:
    """`length` in chats, `max_tokens` in Anthropic's messages."""
    cut = with_finish_reason(RUN, "max_output_tokens")
    assert read(CHAT, body_of(CHAT, cut, [Delta("Hi")]))[1].finish_reasons == {0: "length"}
    assert read(ANTHROPIC, body_of(ANTHROPIC, cut, [Delta("Hi")]))[1].finish_reasons == {0: "max_tokens"}


def test_a_failed_run_raises_the_error_in_the_sdk() -> None:
    """The text before it is received; the body that is not streamed is the error alone."""
    run = Recorded(wire=CHAT, failure=Failure("no memory", "server_error"), terminated=False)
    with pytest.raises(openai.APIError, match="no memory"):
        events_of(run, [Delta("Hi")])
    found, reply = read(RESPONSES, body_of(RESPONSES, run, [Delta("Hi")]))
    assert (found, reply.error["type"]) == ([Delta("Hi")], "server_error")
    assert orjson.loads(body(RESPONSES, run, []))["error"]["message"] == "no memory"


def test_a_run_that_was_cut_off_has_no_end() -> None:
    """Neither has the encoded stream."""
    run = Recorded(wire=RESPONSES, terminated=False)
    assert [event.type for event in events_of(run, [Delta("Hi")])][-1] == "response.output_text.delta"


def test_the_items_of_a_run_come_back() -> None:
    """Calls of every type, a signature, a refusal, citations, a phase, an event of a later API."""
    deltas = [
        Delta("Hm.", REASONING),
        Delta("sig", SIGNATURE),
        Delta('{"id":"c1","name":"run","type":"custom_tool_call"}', TOOL_CALL, "0.1"),
        Delta("print(1)", TOOL_ARGS, "0.1"),
        Delta('{"id":"m1","name":"find","type":"mcp_call","server_label":"docs"}', TOOL_CALL, "0.2"),
        Delta("{}", TOOL_ARGS, "0.2"),
        Delta('{"output":"found"}', TOOL_CALL, "0.2"),
        Delta('{"id":"c2","name":"computer","type":"computer_call"}', TOOL_CALL, "0.3"),
        Delta('{"type":"click","x":1}', TOOL_ARGS, "0.3"),
        Delta('{"phase":"final_answer"}', OTHER),
        Delta("It is"),
        Delta('{"type":"url_citation","url_citation":{"url":"https://a"}}', CITATION),
        Delta("No.", REFUSAL),
        Delta(dumps({"output": [{**SEARCH, "index": 6}]}), OTHER, "0.6"),
        Delta(dumps({"events": [{"type": "response.audio.delta", "delta": "QQ=="}]}), OTHER),
    ]  # fmt: skip
    bytes_of_run = body_of(RESPONSES, RUN, deltas)
    assert read(RESPONSES, bytes_of_run)[0] == deltas
    response = accumulated_by_responses(bytes_of_run)
    kinds = ["reasoning", "custom_tool_call", "mcp_call", "computer_call", "message", "web_search_call"]
    assert [item.type for item in response.output] == kinds
    thought, custom, mcp, computer, message, search = response.output
    assert (thought.encrypted_content, thought.summary[0].text) == ("sig", "Hm.")
    assert (custom.input, mcp.output, mcp.server_label) == ("print(1)", "found", "docs")
    assert (computer.call_id, computer.action.x, search.action.query) == ("c2", 1, "x")
    assert (message.phase, message.status) == ("final_answer", "completed")
    assert [part.type for part in message.content] == ["output_text", "refusal"]
    assert message.content[0].annotations[0].url == "https://a"


def test_names_of_other_providers_may_come_in_pieces() -> None:
    """The call is sent when its name is complete; a call without an id gets one."""
    deltas = [
        Delta('{"name":"wea"}', TOOL_CALL, "0.0"),
        Delta('{"name":"ther"}', TOOL_CALL, "0.0"),
        Delta("{}", TOOL_ARGS, "0.0"),
    ]
    (call,) = accumulated_by_responses(body_of(RESPONSES, CHAT_RUN, deltas)).output
    assert (call.name, call.call_id, call.arguments) == ("weather", "call_0", "{}")


def test_the_arguments_of_several_calls_may_be_mixed() -> None:
    """A call is completed once, when its arguments are complete or the answer ends."""
    calls = [Delta(f'{{"id":"c{number}","name":"f"}}', TOOL_CALL, f"0.{number}") for number in (0, 1)]
    pieces = [Delta(text, TOOL_ARGS, f"0.{number}") for text, number in (('{"a":', 0), ("{}", 1), ("1}", 0))]
    bytes_of_run = body_of(RESPONSES, CHAT_RUN, [*calls, *pieces, Delta("Hi", TEXT)])
    response = accumulated_by_responses(bytes_of_run)
    assert [item.arguments for item in response.output[:2]] == ['{"a":1}', "{}"]
    assert bytes_of_run.count(b"event: response.output_item.done") == 3


def test_an_answer_that_is_too_long_for_one_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be streamed."""
    monkeypatch.setattr(encode_responses, "MAX_REPLY_BYTES", 10)
    with pytest.raises(StoreError, match="too long for one body"):
        body(RESPONSES, RUN, timed([Delta("12345"), Delta("678901")]))
