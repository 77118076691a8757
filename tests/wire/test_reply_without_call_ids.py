"""The message of a format without lasting ids has the id of a call in its extras."""

from __future__ import annotations

from recorder.messages.identity import content_key
from recorder.wire.deltas import TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.reply import Reply
from recorder.wire.reply_without_call_ids import ReplyWithoutCallIds


def reply_with(call: str, arguments: str = "{}") -> Reply:
    """Return a reply with one call."""
    reply = ReplyWithoutCallIds()
    reply.add(Delta(call, TOOL_CALL, "0.0"))
    reply.add(Delta(arguments, TOOL_ARGS, "0.0"))
    return reply


def test_the_id_of_a_call_is_in_its_extras() -> None:
    """Beside what is there already; the reply itself still has it."""
    reply = reply_with('{"id":"1","name":"now","zone":"UTC"}')
    assert reply.message().tool_calls == [
        {"name": "now", "args": {}, "id": None, "type": "tool_call", "extras": {"id": "1", "zone": "UTC"}}
    ]
    assert reply.tool_calls()[0]["id"] == "1"


def test_a_call_without_an_id_has_no_extras() -> None:
    """Nothing is made up."""
    assert "extras" not in reply_with('{"id":null,"name":"now"}').message().tool_calls[0]


def test_two_ids_make_no_difference_and_two_arguments_do() -> None:
    """Also where the arguments are no JSON."""
    for arguments in ("{}", "{"):
        first, second = (reply_with(f'{{"id":"{id}","name":"now"}}', arguments).message() for id in "12")
        assert content_key(first) == content_key(second)
    assert content_key(reply_with('{"name":"a"}').message()) != content_key(
        reply_with('{"name":"a"}', '{"b":1}').message()
    )
