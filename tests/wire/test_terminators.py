"""A stream is complete after the terminator of any format, in any spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.testing import anthropic_messages_frames
from recorder.wire.openai.completions import OpenAICompletions
from recorder.wire.openai.responses import OpenAIResponses
from recorder.wire.sse import Event, is_done
from tests import responses
from tests.alike import assert_alike, claude, forms_of
from tests.alike import openai as chat
from tests.chatting import CALL_STYLES, CallStyle, name_of
from tests.wires import DONE, delta, event, translated

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

STOP = event({"type": "message_stop"})
ENDS = {
    "OpenAI's": DONE,
    "OpenAI's under a name": b"event: done\n" + DONE,
    "in quotes": b'data: "[DONE]"\n\n',
    "in small letters": b"data: [done]\n\n",
    "without brackets": b"data: DONE\n\n",
    "Anthropic's": b"event: message_stop\n" + STOP,
    "Anthropic's without a name": STOP,
    "a name and no data worth reading": b"event: done\ndata: {}\n\n",
    "a name and a word": b"event: end\ndata: bye\n\n",
}


@both
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_an_anthropic_stream_is_complete_after_any_terminator(
    end: bytes, style: CallStyle, tmp_path: Path
) -> None:
    """The terminator is neither a token nor a part of the message."""
    body = b"".join(anthropic_messages_frames(["Hello"])[:-1]) + end
    found = forms_of(claude, body, style, tmp_path)
    assert found.end[:2] == ("complete", "end_turn")
    assert found.tokens == [("text", "0", "Hello")]
    assert found.message is not None
    assert (found.message.content, found.message.additional_kwargs) == ("Hello", {})
    assert_alike(found)


@both
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_chat_stream_is_complete_after_any_terminator(end: bytes, style: CallStyle, tmp_path: Path) -> None:
    """It needs no finish reason."""
    found = forms_of(chat, delta(content="Hello") + end, style, tmp_path)
    assert (found.run["status"], found.tokens) == ("complete", [("text", "0", "Hello")])
    assert_alike(found)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_completion_stream_is_complete_after_any_terminator(end: bytes) -> None:
    """The terminator makes no delta."""
    deltas, reply = translated([event({"choices": [{"index": 0, "text": "a"}]}), end], OpenAICompletions)
    assert (len(deltas), reply.terminated) == (1, True)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_response_is_complete_after_any_terminator(end: bytes) -> None:
    """The API sends none of them; proxies do."""
    deltas, reply = translated([responses.created(), responses.text("a"), end], OpenAIResponses)
    assert (len(deltas), reply.text(), reply.terminated) == (1, "a", True)


def test_usage_in_the_terminating_event_is_read() -> None:
    """Some servers send the usage in an event named `done`."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    _, reply = translated([delta(content="a"), b"event: done\n" + event({"usage": usage})])
    assert (reply.raw_usage, reply.terminated) == (usage, True)


def test_text_that_looks_like_a_terminator_is_text() -> None:
    """An answer may contain the word DONE."""
    assert not is_done(Event(b'{"choices":[]}'))
    assert not is_done(Event(b"DONE with it"))
    assert not is_done(Event(None, "done"))
    assert is_done(Event(b" [DONE] "))
