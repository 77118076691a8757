"""Genuine Anthropic streams: the translator agrees with the SDK's accumulator, and everything is stored."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest

from recorder.testing import Answer, LoopbackProvider
from recorder.wire.anthropic.reply import AnthropicReply
from recorder.wire.anthropic.stream import AnthropicMessages
from recorder.wire.deltas import Delta
from recorder.wire.request_hash import TRANSPORT_KEYS
from tests.anthropics import ASK, blocks_of, chat, sdk, stripped
from tests.chatting import CALL_STYLES, CallStyle, history_at, name_of, recorded
from tests.genuine import Stream, anthropic_streams
from tests.oracle import sql
from tests.wires import at_random, by_one, crlf, encoded, frames_of, genuine_anthropic, translated

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


def by_the_sdk(stream: Stream | bytes, **more: Any) -> Any:
    """Return the final message of the SDK's own accumulator, over a socket."""
    body = stream if isinstance(stream, bytes) else stream.body
    with (
        LoopbackProvider(Answer(frames=[body])) as provider,
        sdk(provider).beta.messages.stream(**ASK, **more) as found,
    ):
        return found.get_final_message()


def reply_of(body: bytes) -> tuple[list[Delta], AnthropicReply]:
    """Return the deltas and the reply of a body."""
    deltas, reply = translated(frames_of([body]), AnthropicMessages)
    assert isinstance(reply, AnthropicReply)
    return deltas, reply


@genuine_anthropic
def test_the_translated_message_equals_the_sdks(stream: Stream) -> None:
    """Blocks, text, calls, stop reason, ids and usage are the same."""
    expected, (deltas, reply) = by_the_sdk(stream), reply_of(stream.body)
    assert stripped(reply.blocks()) == blocks_of(expected)
    text = "".join(block.text for block in expected.content if block.type == "text")
    assert reply.text() == text
    assert "".join(delta.text for delta in deltas if delta.kind == "text") == text
    calls = [(block.id, block.name, block.input) for block in expected.content if block.type == "tool_use"]
    message = reply.message()
    assert [(call["id"], call["name"], call["args"]) for call in message.tool_calls] == calls
    assert (reply.response_id, reply.model) == (expected.id, expected.model)
    assert reply.finish_reasons == {0: expected.stop_reason}
    assert stripped(reply.metadata.get("container")) == stripped(
        expected.container and expected.container.model_dump(mode="json")
    )
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == expected.usage.output_tokens
    cached = (expected.usage.cache_read_input_tokens or 0) + (expected.usage.cache_creation_input_tokens or 0)
    assert message.usage_metadata["input_tokens"] == expected.usage.input_tokens + cached
    assert [delta for delta in deltas if "undecodable" in delta.text] == []


@genuine_anthropic
def test_anthropic_deltas_do_not_depend_on_the_pieces_of_the_body(stream: Stream) -> None:
    """The body comes byte by byte or in random pieces, with LF and CRLF."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    expected = reply_of(stream.body)[0]
    assert expected
    for body in (stream.body, crlf(stream.body)):
        for pieces in (by_one(body), at_random(body, chance)):
            assert translated(frames_of(pieces), AnthropicMessages)[0] == expected


@genuine_anthropic
def test_the_sdk_reads_the_same_message_from_encoded_deltas(stream: Stream) -> None:
    """The stream is encoded from the deltas alone."""
    deltas, reply = reply_of(stream.body)
    body = b"".join(encoded(deltas, reply))
    found, expected = by_the_sdk(body), by_the_sdk(stream)
    assert blocks_of(found) == blocks_of(expected)
    assert found.usage.output_tokens == expected.usage.output_tokens


@pytest.mark.matrix
@both
@genuine_anthropic
def test_a_genuine_anthropic_stream_is_recorded(stream: Stream, style: CallStyle, database: str) -> None:
    """Text, blocks and usage are stored, and the frames byte for byte."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    answer = Answer(frames=[stream.body], chunks=[chance.randrange(1, 900) for _ in range(50)])
    expected = by_the_sdk(stream)
    options = {
        key: value
        for key, value in (stream.request or {}).items()
        if key not in ("messages", *TRANSPORT_KEYS)
    }
    options.pop("context_management", None)
    with LoopbackProvider(answer) as provider, history_at(database) as history:
        chunks = style.stream(chat(provider, callbacks=[history]), "Hi", tools=options.get("tools"))
    found = recorded(database)
    run = found.run
    text = "".join(block.text for block in expected.content if block.type == "text")

    assert (chunks[0] + chunks[1:]).text == text
    assert found.body == stream.body
    assert run["frames_sha256"] == hashlib.sha256(stream.body).hexdigest()
    assert run["sha256"] == found.tokens.found_sha256
    assert found.transcript == [("user", "Hi"), ("assistant", text)]
    assert (run["provider_name"], run["wire"]) == ("anthropic", "anthropic.messages")
    assert (run["response_id"], run["response_model"]) == (expected.id, expected.model)
    assert (run["finish_reason"], run["status"]) == (expected.stop_reason, "complete")
    assert run["output_tokens"] == expected.usage.output_tokens
    rows = sql(database, "SELECT text, kind, idx FROM tokens ORDER BY seq")
    reply = AnthropicReply()
    for row in rows:
        reply.add(Delta(*row))
    assert stripped(reply.blocks()) == blocks_of(expected)
    assert_parts(database, reply)


def assert_parts(database: str, reply: AnthropicReply) -> None:
    """Assert that the stored message has the blocks if it has more than text."""
    ((parts,),) = sql(database, "SELECT parts FROM messages WHERE role = 'assistant'")
    blocks = reply.blocks()
    if len(blocks) > 1:
        assert json.loads(parts)["content"] == blocks
    else:
        assert parts is None


def test_there_are_genuine_anthropic_streams_of_every_kind() -> None:
    """Otherwise the tests above would check little."""
    found = anthropic_streams()
    if not found:
        pytest.skip("no genuine streams")
    assert len(found) >= 12
    kinds = {kind for stream in found for kind in ("thinking", "web_search", "mcp_tool_use", "citations_delta",
             "compaction", '"tool_use"') if kind.encode() in stream.body}  # fmt: skip
    assert len(kinds) == 6
