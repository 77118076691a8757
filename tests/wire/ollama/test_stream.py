"""The translator of Ollama: lines of a chat and of a text, in any pieces.

The lines are scripted from the types of ollama 0.6: no genuine stream was seen.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.messages import ChatGeneration, LLMResult
from recorder.recording.run_end import end_of_result
from recorder.wire.deltas import Delta
from recorder.wire.formats import translator_of
from recorder.wire.ollama.stream import CHAT_WIRE, GENERATE_WIRE, OllamaChat, OllamaGenerate
from recorder.wire.reply import Reply
from tests.wires import unhurried

HEAD = {"model": "qwen3", "created_at": "2026-11-28T12:00:00.1Z"}
COUNTS = {"prompt_eval_count": 14, "eval_count": 7}
DONE = {
    "done": True, "done_reason": "stop", "total_duration": 9_000, "load_duration": 1_000, **COUNTS,
    "prompt_eval_duration": 2_000, "eval_duration": 6_000,
}  # fmt: skip
CALL = {"id": "call_1", "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}}
_CALL_DELTAS = [
    Delta('{"id":"call_1","name":"get_weather"}', "tool_call", "0.0"),
    Delta('{"city":"Paris"}', "tool_args", "0.0"),
]
_TEXTS = [Delta("Hm. ", "reasoning"), Delta("Hel"), Delta('lo 中 "\n{')]


def chat(**message: Any) -> dict[str, Any]:
    """Return a line with a piece of a message."""
    return {**HEAD, "message": {"role": "assistant", "content": "", **message}, "done": False}


def generated(**fields: Any) -> dict[str, Any]:
    """Return a line with a piece of a text."""
    return {**HEAD, "response": "", "done": False, **fields}


def lines(*events: Any) -> bytes:
    """Return the body of a stream."""
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in events)


CHAT = lines(
    chat(thinking="Hm. "),
    chat(content="Hel"),
    chat(content='lo 中 "\n{'),
    chat(tool_calls=[CALL]),
    chat() | DONE,
)
TEXT = lines(
    generated(thinking="Hm. "), generated(response="Hel"), generated(response='lo 中 "\n{'),
    generated(context=[1, 2]) | DONE,
)  # fmt: skip
STREAMS: dict[str, tuple[str, bytes, list[Delta]]] = {
    "chat": (CHAT_WIRE, CHAT, [*_TEXTS, *_CALL_DELTAS]),
    "generate": (GENERATE_WIRE, TEXT, _TEXTS),
}
streams = pytest.mark.parametrize(("wire", "body", "expected"), STREAMS.values(), ids=STREAMS)


def decoded(wire: str, *pieces: bytes) -> tuple[list[Delta], Reply]:
    """Return what the translator makes of a body in these pieces."""
    translator = translator_of(wire)
    assert translator is not None
    splitter = translator.framing.splitter()
    frames = [frame for piece in pieces for frame in splitter.feed(piece)]
    if rest := splitter.end():
        frames.append(rest)
    assert b"".join(frames) == b"".join(pieces)
    return [delta for frame in frames for delta in translator.decode(frame)], translator.reply


def reply_of(*events: Any) -> Reply:
    """Return the reply that the chat translator makes of these lines."""
    return decoded(CHAT_WIRE, lines(*events))[1]


@streams
def test_a_stream_has_its_tokens_and_its_end(wire: str, body: bytes, expected: list[Delta]) -> None:
    """Reasoning, text and calls; the last line has the reason and the counts."""
    deltas, reply = decoded(wire, body)
    assert deltas == expected
    assert (reply.model, reply.finish_reasons, reply.terminated) == ("qwen3", {0: "stop"}, True)
    assert (reply.raw_usage, reply.usage) == (
        COUNTS,
        {"input_tokens": 14, "output_tokens": 7, "total_tokens": 21},
    )
    assert reply.response_metadata()["eval_duration"] == 6_000


@streams
def test_every_cut_of_the_bytes_gives_the_same_tokens(wire: str, body: bytes, expected: list[Delta]) -> None:
    """Once at each position, and byte by byte; with CRLF, and without the last line end."""
    for at in range(len(body)):
        assert decoded(wire, body[:at], body[at:])[0] == expected
    assert decoded(wire, *(body[at : at + 1] for at in range(len(body))))[0] == expected
    assert decoded(wire, body.replace(b"\n", b"\r\n"))[0] == expected
    assert decoded(wire, body.rstrip())[0] == expected


def test_the_translators_are_found_by_the_names_of_their_formats() -> None:
    """A chat and a text are two formats, as with OpenAI."""
    assert isinstance(translator_of("ollama.chat"), OllamaChat)
    assert isinstance(translator_of("ollama.generate"), OllamaGenerate)


def test_an_answer_that_is_not_streamed_is_one_object() -> None:
    """It has the form of the last line, with everything in it."""
    message = {"role": "assistant", "content": "Hello", "thinking": "Hm. ", "tool_calls": [CALL]}
    translator = OllamaChat()
    deltas = translator.decode(json.dumps({**HEAD, "message": message, **DONE}, indent=1).encode())
    assert list(deltas) == [Delta("Hm. ", "reasoning"), Delta("Hello"), *_CALL_DELTAS]
    assert (translator.reply.terminated, translator.reply.raw_usage) == (True, COUNTS)


def test_calls_are_numbered_over_all_lines() -> None:
    """Each comes in one piece; some models send several, in one line or in more, and with the same index."""
    bare: Any = {"function": {"name": "now", "arguments": {}}}
    reply = reply_of(chat(tool_calls=[CALL, bare]), chat(tool_calls=[CALL]), chat() | DONE)
    found = [(call["id"], call["name"], call["arguments"]) for call in reply.tool_calls()]
    call = ("call_1", "get_weather", '{"city":"Paris"}')
    assert found == [call, (None, "now", ""), call]


@pytest.mark.parametrize(
    ("reason", "status"),
    [("stop", "complete"), ("length", "incomplete"), ("load", "complete"), (None, "complete")],
)
def test_each_reason_has_a_status(reason: str | None, status: str) -> None:
    """Older servers send none."""
    reply = reply_of(chat(content="Hi"), chat() | DONE | {"done_reason": reason})
    end = end_of_result(LLMResult([[ChatGeneration(reply.message())]]))
    assert (end.finish_reason, end.status) == (reason, status)


def test_a_stream_without_its_last_line_has_not_ended() -> None:
    """Whatever a line says that is not the last one."""
    assert not reply_of(chat(content="Hi")).has_ended
    assert not reply_of().has_ended


@pytest.mark.parametrize(
    "line", [{"error": "model runner stopped"}, {**HEAD, "error": "model runner stopped"}]
)
def test_an_error_in_the_middle_is_found(line: Any) -> None:
    """The text before it stays."""
    reply = reply_of(chat(content="Hi"), line)
    assert (reply.text(), reply.error, reply.has_ended) == ("Hi", "model runner stopped", False)


def test_nothing_after_the_last_line_is_read() -> None:
    """A proxy may add its own terminator."""
    _, reply = decoded(CHAT_WIRE, CHAT, b"data: [DONE]\n", lines(chat(content="more")))
    assert (reply.text(), reply.error) == ('Hello 中 "\n{', None)


def test_lines_that_a_proxy_made_events_of_are_read() -> None:
    """With `data:` before each, comments and a terminator."""
    events = b"".join(b"data: " + line + b"\n" for line in CHAT.splitlines(keepends=True))
    assert decoded(CHAT_WIRE, b": hello\n", events, b"data: [DONE]\n\n")[0] == STREAMS["chat"][2]


def test_log_probabilities_are_kept() -> None:
    """Under the name of OpenAI's format."""
    first, second = {"token": "H", "logprob": -0.1}, {"token": "i", "logprob": -0.2}
    reply = reply_of(chat(content="H") | {"logprobs": [first]}, chat(content="i") | {"logprobs": [second]})
    assert reply.logprobs == {0: {"content": [first, second]}}


def test_anything_else_is_kept_as_json() -> None:
    """An image that a model generates, or what comes in future."""
    deltas, _ = decoded(GENERATE_WIRE, lines(generated(image="aGk="), generated(completed=1, total=9)))
    assert deltas == [Delta('{"image":"aGk="}', "other")]
    deltas, _ = decoded(CHAT_WIRE, lines(chat(images=["aGk="])))
    assert deltas == [Delta('{"images":["aGk="]}', "other")]


#: Values of each type that JSON has, for a key that should have another one.
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1e300,
    "",
    "x",
    [],
    [None],
    [[]],
    {},
    {"a": {}},
    [{"function": 7}],
    [{"function": {}}],
]


@pytest.mark.parametrize(
    "key", [*HEAD, "message", "response", "thinking", "tool_calls", "logprobs", "done_reason", "x"]
)
def test_wrong_types_in_a_line_never_raise(key: str) -> None:
    """The stream goes on after them, and its message can be made."""
    for value in ODD:
        reply = reply_of(chat(content="a") | {key: value}, chat(content="b") | DONE)
        assert reply.text().endswith("b")
        reply.message()


@pytest.mark.parametrize("key", ["content", "thinking", "tool_calls", "images", "x"])
def test_wrong_types_in_a_message_never_raise(key: str) -> None:
    """What is no text or call is kept as JSON."""
    functions: list[Any] = [[{"id": value, "function": {"name": value, "arguments": value}}] for value in ODD]
    for value in [*ODD, *functions]:
        reply = reply_of(chat(**{key: value}), chat(content="b"))
        assert reply.text().endswith("b")
        reply.message()


@given(st.binary(max_size=200), st.sampled_from([b"", b"{", b"\n", b"data: ", CHAT[:200]]))
@unhurried
def test_no_bytes_raise(noise: bytes, before: bytes) -> None:
    """The frames joined are the body."""
    decoded(CHAT_WIRE, before + noise)


def test_a_stream_of_random_damage_never_raises() -> None:
    """Bytes of a stream are replaced; the seed is printed."""
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(300):
        body = bytearray(CHAT)
        for _ in range(3):
            body[chance.randrange(len(body))] = chance.choice(b'{}[]",:\\\n\r 0e\xff')
        decoded(CHAT_WIRE, bytes(body))[1].message()


def pieces_of(body: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """Yield the body in pieces of these sizes, and the rest."""
    start = 0
    for size in sizes:
        yield body[start : start + size]
        start += size
    yield body[start:]


@given(st.lists(st.integers(1, 60), max_size=60))
@unhurried
def test_any_pieces_give_the_same_tokens(sizes: list[int]) -> None:
    """The last piece has the rest."""
    assert decoded(CHAT_WIRE, *pieces_of(CHAT, sizes))[0] == STREAMS["chat"][2]
