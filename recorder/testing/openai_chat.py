"""Chat completions as OpenAI's API writes them: the events of a stream, whole answers, errors."""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import orjson

from recorder.testing.song import pieces_of

DONE = b"data: [DONE]\n\n"

#: What the API calls a model that was asked for by its short name.
SNAPSHOTS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
}

_LETTERS = string.ascii_letters + string.digits
#: The API pads each event, so that nobody can tell its token by its length: its JSON has a multiple of
#: 16 bytes and one.
_STEP = 16
_FIELD = len(',"obfuscation":""')
#: Its own source of chance, so that an application that seeds `random` is not disturbed.
_chance = random.Random()

#: The pieces of one answer for all choices, or one list a choice.
Pieces = Sequence[str] | Sequence[Sequence[str]]
#: `{"id", "name", "arguments"}`, arguments as one string of JSON or in pieces.
Call = Mapping[str, Any]


def openai_chat_frames(
    pieces: Pieces,
    *,
    model: str = "gpt-4o-mini",
    id: str = "",
    usage: bool = True,
    reasoning: Sequence[str] = (),
    tool_calls: Sequence[Call] = (),
    finish_reason: str | None = None,
    n: int = 1,
    created: int | None = None,
    prompt_tokens: int = 14,
    obfuscation: bool = True,
) -> list[bytes]:
    """The events of one streamed chat completion, each as its bytes with the blank line.

    The role comes first, then `reasoning` (in the words of DeepSeek's dialect), the text and the tool
    calls, the finish reason ("stop", or "tool_calls" when there are calls), the usage if asked for, and
    `[DONE]`. `pieces` is one list for all `n` choices, or a list of lists, one for each. `created` is in
    Unix seconds. The same arguments with the same id and `created` give the same bytes.
    """
    stream = _Stream.open(id or chat_id(), model, created, usage, obfuscation)
    said = [_Said(part, reasoning, tool_calls) for part in each_choice(pieces, n)]
    frames = [stream.choice(index, delta) for index, delta in _in_turn(said)]
    frames += [stream.choice(index, {}, finish_reason or each.finish) for index, each in enumerate(said)]
    if usage:
        frames.append(stream.chunk([], _usage(prompt_tokens, said)))
    return [*frames, DONE]


def openai_chat_body(
    pieces: Pieces,
    *,
    model: str = "gpt-4o-mini",
    id: str = "",
    reasoning: Sequence[str] = (),
    tool_calls: Sequence[Call] = (),
    finish_reason: str | None = None,
    n: int = 1,
    created: int | None = None,
    prompt_tokens: int = 14,
) -> bytes:
    """The same answer not streamed: one `chat.completion`, indented as the API sends it."""
    said = [_Said(part, reasoning, tool_calls) for part in each_choice(pieces, n)]
    completion = {
        "id": id or chat_id(),
        "object": "chat.completion",
        "created": int(time.time()) if created is None else created,
        "model": SNAPSHOTS.get(model, model),
        "choices": [each.choice(index, finish_reason) for index, each in enumerate(said)],
        "usage": _usage(prompt_tokens, said),
        "service_tier": "default",
        "system_fingerprint": _fingerprint(model),
    }
    return indented(completion)


def openai_models(created: int = 1721172741) -> bytes:
    """The answer to GET /v1/models."""
    rest = {"object": "model", "created": created, "owned_by": "system"}
    return indented({"object": "list", "data": [{"id": name, **rest} for name in SNAPSHOTS]})


def openai_error(message: str, type: str = "server_error", code: str | None = None) -> bytes:
    """An error's body as the API words it."""
    return json.dumps(_error(message, type, code), indent=4).encode() + b"\n"


def openai_error_frame(message: str, type: str = "server_error", code: str | None = None) -> bytes:
    """An error inside a stream: its last event, with no `[DONE]` behind it."""
    return b"data: " + compact(_error(message, type, code)) + b"\n\n"


def prompt_tokens_of(messages: Iterable[Any]) -> int:
    """About what a prompt counts: its words, four tokens a message for its frame, three for the reply."""
    return 3 + sum(4 + len(pieces_of(_text_of(message))) for message in messages)


def chat_id() -> str:
    """A new id of the API's form."""
    return "chatcmpl-" + "".join(_chance.choices(_LETTERS, k=29))


@dataclass(frozen=True, slots=True)
class _Said:
    """What one choice says."""

    pieces: Sequence[str]
    reasoning: Sequence[str]
    tool_calls: Sequence[Call]

    @property
    def finish(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"

    @property
    def tokens(self) -> int:
        """How many tokens it took, where each piece is one."""
        calls = sum(1 + len(_argument_pieces(call)) for call in self.tool_calls)
        return len(self.pieces) + len(self.reasoning) + calls

    def choice(self, index: int, finish_reason: str | None) -> dict[str, Any]:
        """The choice in an answer that is not streamed."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content()}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.tool_calls:
            message["tool_calls"] = [_whole_call(call) for call in self.tool_calls]
        message |= {"refusal": None, "annotations": []}
        reason = finish_reason or self.finish
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    def _content(self) -> str | None:
        return "".join(self.pieces) if self.pieces or not self.tool_calls else None

    def deltas(self) -> list[dict[str, Any]]:
        """The choice's deltas, from the role to the last piece."""
        calls = [delta for index, call in enumerate(self.tool_calls) for delta in _call_deltas(index, call)]
        if self.reasoning:
            return [*self._reasoning_deltas(), *calls]
        if not calls or self.pieces:
            role = {"role": "assistant", "content": "", "refusal": None}
            return [role, *({"content": piece} for piece in self.pieces), *calls]
        if len(self.tool_calls) == 1:
            # A single call without text is opened by the role's own event.
            return [{"role": "assistant", "content": None, **calls[0], "refusal": None}, *calls[1:]]
        return [{"role": "assistant", "content": None}, *calls]

    def _reasoning_deltas(self) -> Iterator[dict[str, Any]]:
        """Thoughts, then text, with both fields in each event as DeepSeek has them."""
        yield {"role": "assistant", "content": None, "reasoning_content": ""}
        yield from ({"content": None, "reasoning_content": thought} for thought in self.reasoning)
        yield from ({"content": piece, "reasoning_content": None} for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class _Stream:
    """What all events of one answer share."""

    #: The fields in front of `choices`, in the order of genuine streams.
    head: dict[str, Any]
    #: Whether events carry `usage` (null but in the last), as `stream_options.include_usage` asks for.
    usage: bool
    #: Whether events are padded.
    obfuscation: bool
    chance: random.Random

    @classmethod
    def open(cls, id: str, model: str, created: int | None, usage: bool, obfuscation: bool) -> _Stream:
        head = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": int(time.time()) if created is None else created,
            "model": SNAPSHOTS.get(model, model),
            "service_tier": "default",
            "system_fingerprint": _fingerprint(model),
        }
        return cls(head, usage, obfuscation, random.Random(id))

    def choice(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        """One event of one choice."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self.chunk([choice])

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        """One event."""
        fields: dict[str, Any] = {**self.head, "choices": choices}
        if self.usage:
            fields["usage"] = usage
        return b"data: " + self._padded(compact(fields)) + b"\n\n"

    def _padded(self, body: bytes) -> bytes:
        """`body` with the padding that brings it to the next step."""
        if not self.obfuscation:
            return body
        missing = (1 - len(body) - _FIELD) % _STEP
        padding = "".join(self.chance.choices(_LETTERS, k=missing))
        return b'%b,"obfuscation":"%b"}' % (body[:-1], padding.encode())


def each_choice(pieces: Pieces, n: int) -> list[Sequence[str]]:
    """The pieces of each choice."""
    shared = [piece for piece in pieces if isinstance(piece, str)]
    if len(shared) == len(pieces):
        return [shared] * n
    if len(pieces) != n:
        raise ValueError(f"There are {len(pieces)} lists of pieces for n={n} choices; give one for each.")
    return list(pieces)


def _in_turn(said: list[_Said]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The deltas of all choices by turns, as the API sends them, with the choice's index."""
    for turn in zip_longest(*(each.deltas() for each in said)):
        yield from ((index, delta) for index, delta in enumerate(turn) if delta is not None)


def _call_deltas(index: int, call: Call) -> Iterator[dict[str, Any]]:
    """A tool call: opened with empty arguments, which then come in pieces."""
    function = {"name": call["name"], "arguments": ""}
    yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
    for piece in _argument_pieces(call):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _whole_call(call: Call) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": "".join(_argument_pieces(call))}
    return {"id": call["id"], "type": "function", "function": function}


def _argument_pieces(call: Call) -> list[str]:
    arguments = call["arguments"]
    return pieces_of(arguments) if isinstance(arguments, str) else list(arguments)


def _usage(prompt_tokens: int, said: list[_Said]) -> dict[str, Any]:
    """The token counts of an answer."""
    written = sum(each.tokens for each in said)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(len(each.reasoning) for each in said),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _text_of(message: Any) -> str:
    """The text of a request's message, be it a string or parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _error(message: str, type: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


def _fingerprint(model: str) -> str:
    """The system fingerprint, one a model."""
    return f"fp_{random.Random(model).getrandbits(40):010x}"


def compact(value: Any) -> bytes:
    """Compact JSON; half a surrogate pair, which UTF-8 cannot say, is escaped as servers do."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def indented(value: Any) -> bytes:
    """JSON as the API sends whole answers."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return json.dumps(value, indent=2).encode() + b"\n"
