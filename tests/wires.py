"""Helpers for the tests of wire formats: they make bodies, cut them into pieces, and translate them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import settings

from recorder.wire.deltas import Delta
from recorder.wire.encode import encode
from recorder.wire.openai.chat import OpenAIChat
from recorder.wire.recorded_run import ANTHROPIC, Recorded
from recorder.wire.reply import Reply, Translator
from recorder.wire.sse import FrameSplitter
from tests.genuine import MISSING, Stream, anthropic_streams, chat_streams, name_of

_ABSENT = [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")]


def _each(streams: list[Stream]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stream", streams or _ABSENT, ids=name_of if streams else None)


#: Run a test for each genuine chat stream, or for each genuine Anthropic stream.
genuine = _each(chat_streams())
genuine_anthropic = _each(anthropic_streams())

#: Settings for each test of Hypothesis: without a deadline, so that a busy machine fails no test.
unhurried = settings(deadline=None)

DONE = b"data: [DONE]\n\n"

#: JSON values that no field of a request expects.
ODD_VALUES: tuple[Any, ...] = (None, True, 0, 1e300, "", "x", [], [None], [[]], {}, {"a": {}})


# -- bodies --------------------------------------------------------------------------------------------------


def event(fields: Any) -> bytes:
    """Return one event with this JSON value."""
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def delta(*, index: int = 0, finish_reason: str | None = None, **fields: Any) -> bytes:
    """Return one event of one choice, whose delta has these fields."""
    choice = {"index": index, "delta": fields, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-1", "model": "gpt-4o", "choices": [choice]})


def calls(*pieces: dict[str, Any], index: int = 0) -> bytes:
    """Return one event with pieces of tool calls: `index`, `id`, `name` and `arguments`, if given."""
    return delta(index=index, tool_calls=[_call(dict(piece)) for piece in pieces])


def _call(piece: dict[str, Any]) -> dict[str, Any]:
    function = {key: piece.pop(key) for key in ("name", "arguments") if key in piece}
    return {**piece, "function": function}


# -- cut up --------------------------------------------------------------------------------------------------


def by_one(body: bytes) -> Iterator[bytes]:
    """Cut a body into single bytes, and so inside of each multi-byte character."""
    return (body[at : at + 1] for at in range(len(body)))


def at_random(body: bytes, chance: random.Random) -> Iterator[bytes]:
    """Cut a body into pieces of random sizes, most of them small."""
    start = 0
    while start < len(body):
        size = chance.choice((1, 2, 3, chance.randrange(1, 200), chance.randrange(1, 20_000)))
        yield body[start : start + size]
        start += size


def crlf(body: bytes) -> bytes:
    """Return the body with CRLF line ends."""
    return body.replace(b"\n", b"\r\n")


# -- translate -----------------------------------------------------------------------------------------------


def frames_of(pieces: Iterable[bytes]) -> list[bytes]:
    """Return the frames of a body that arrives in these pieces."""
    splitter = FrameSplitter()
    frames = [frame for piece in pieces for frame in splitter.feed(piece)]
    rest = splitter.end()
    return [*frames, rest] if rest else frames


def translated(
    frames: Iterable[bytes], make: Callable[[], Translator] = OpenAIChat
) -> tuple[list[Delta], Reply]:
    """Return the deltas and the reply that a translator makes of frames."""
    translator = make()
    deltas = [delta for frame in frames for delta in translator.decode(frame)]
    return deltas, translator.reply


def reply_of(*frames: bytes) -> Reply:
    """Return the reply that the chat translator makes of frames."""
    return translated(frames)[1]


def choice_fields(reply: Reply, choice: int = 0) -> dict[str, Any]:
    """Return the fields of a choice that are not empty."""
    found = {
        "text": reply.text(choice),
        "reasoning": reply.text(choice, "reasoning"),
        "refusal": reply.text(choice, "refusal"),
        "calls": [(call["id"], call["name"], call["arguments"]) for call in reply.tool_calls(choice)],
        "finish_reason": reply.finish_reasons.get(choice),
    }
    return {key: value for key, value in found.items() if value}


def reply_fields(reply: Reply) -> tuple[Any, ...]:
    """Return all fields of a reply, to compare it with another one."""
    choices = reply.choices
    about = (reply.response_id, reply.model, reply.metadata, reply.raw_usage, reply.usage, reply.error)
    return (*about, reply.terminated, choices, [choice_fields(reply, each) for each in choices])


def encoded(deltas: Iterable[Delta], reply: Reply) -> list[bytes]:
    """Encode deltas as Anthropic frames, with the fields of the run's row that belong to its reply."""
    run = Recorded(
        wire=ANTHROPIC, response_id=reply.response_id, model=reply.model, finish_reasons=reply.finish_reasons,
        usage=reply.raw_usage, metadata=reply.metadata,
    )  # fmt: skip
    return [frame for _, frame in encode(ANTHROPIC, run, ((0, delta) for delta in deltas))]
