"""Genuine Responses streams are decoded to what the SDK's own accumulator makes of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from recorder.wire.deltas import OTHER
from recorder.wire.openai.responses import OpenAIResponses
from recorder.wire.openai.responses_items import unwrapped_citation
from recorder.wire.recorded_run import value_of
from recorder.wire.reply import Reply
from tests.encoded import accumulated_by_responses
from tests.genuine import MISSING, Stream, name_of, responses_streams
from tests.responses import decoded, fields_of_response
from tests.wires import at_random, by_one, crlf, event, frames_of, translated

STREAMS = responses_streams()
each = pytest.mark.parametrize(
    "stream",
    STREAMS or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")],
    ids=name_of if STREAMS else None,
)


def fields_of_reply(reply: Reply) -> dict[str, Any]:
    """Return the same of a reply."""
    more = reply.additional(0)
    calls = [(call["id"], call["name"], call["arguments"]) for call in reply.tool_calls()]
    return {
        "text": reply.text(),
        "reasoning": reply.text(kind="reasoning"),
        "calls": [call for call in calls if call[1] != "tool_search"],
        "citations": [unwrapped_citation(citation) for citation in more.get("annotations", ())],
        "other": [item["type"] for item in more.get("output", ())],
        "usage": reply.raw_usage,
        "id": reply.response_id,
        "model": reply.model,
        "status": reply.metadata["status"],
    }


# The SDK warns about its own types: a web search may have sources of the type `api`.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@each
def test_a_genuine_stream_equals_the_sdks_response(stream: Stream) -> None:
    """Text, reasoning, calls, citations, other items, usage and status are the same."""
    _, reply = decoded(stream.body)
    assert fields_of_reply(reply) == fields_of_response(accumulated_by_responses(stream.body))
    assert (reply.terminated, reply.truncated, reply.failure()) == (True, False, None)
    assert reply.finish_reasons == {0: "tool_calls" if reply.tool_calls() else "stop"}


@each
def test_the_deltas_do_not_depend_on_how_the_body_arrives(stream: Stream) -> None:
    """Single bytes, random pieces and CRLF give the same deltas; nothing is undecodable."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    deltas, _ = decoded(stream.body)
    assert not [delta for delta in deltas if delta.kind == OTHER and "undecodable" in delta.text]
    for pieces in (
        at_random(stream.body, random.Random(seed)),
        by_one(stream.body),
        [crlf(stream.body)],
    ):
        assert translated(frames_of(pieces), OpenAIResponses)[0] == deltas


@each
def test_each_piece_of_text_is_a_delta(stream: Stream) -> None:
    """The text deltas are the SDK's text events, piece by piece."""
    deltas, _ = decoded(stream.body)
    sent = [value_of(line[6:]) for line in stream.body.decode().splitlines() if line.startswith("data: ")]
    texts = [fields["delta"] for fields in sent if fields["type"] == "response.output_text.delta"]
    assert [delta.text for delta in deltas if delta.kind == "text"] == [text for text in texts if text]


def events_in(stream: Stream) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    return [value_of(line[6:]) for line in stream.body.decode().splitlines() if line.startswith("data: ")]


def without(events: list[dict[str, Any]], *ends: str) -> bytes:
    """Return a body without the events whose type has one of these ends."""
    return b"".join(event(fields) for fields in events if not fields["type"].endswith(ends))


@each
def test_a_proxy_that_drops_events_changes_nothing_of_the_reply(stream: Stream) -> None:
    """Deltas, `done` events, or all but the last event may be missing."""
    events = events_in(stream)
    expected = fields_of_reply(decoded(stream.body)[1])
    for body in (
        without(events, ".delta"),
        without(events, ".done", ".added"),
        without(events, ".delta", ".done", ".added"),
        without(events, ".delta", "text.done", "arguments.done", "code.done"),
        event(events[-1]["response"])[6:],
        b"".join(
            event(fields) + event(fields) if fields["type"].endswith(".done") else event(fields)
            for fields in events
        ),
    ):
        deltas, reply = decoded(body)
        assert fields_of_reply(reply) == expected
        assert not [delta for delta in deltas if "undecodable" in delta.text]


@each
def test_a_stream_that_is_resumed_in_the_middle_has_the_rest(stream: Stream) -> None:
    """`starting_after` begins the stream at any event, without `response.created`."""
    events = events_in(stream)
    expected = decoded(stream.body)[1]
    for start in range(0, len(events), max(1, len(events) // 7)):
        _, reply = decoded(b"".join(map(event, events[start:])))
        assert (reply.response_id, reply.raw_usage) == (expected.response_id, expected.raw_usage)
        assert reply.tool_calls() == expected.tool_calls() or start > 0
        assert bool(reply.text()) == bool(expected.text())
        assert expected.text().endswith(reply.text())
        assert reply.terminated


def test_there_are_genuine_responses_streams(streams: list[Stream]) -> None:
    """Otherwise the tests above would check little."""
    assert len(STREAMS) >= 19
    assert {stream.provider for stream in STREAMS} >= {"openai", "deepseek"}
