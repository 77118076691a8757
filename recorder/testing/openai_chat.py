"""Chat completions in the form of OpenAI's API: streamed events, responses that are not streamed, and errors."""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from recorder.testing.json_bodies import compact, indented, text_of
from recorder.testing.song import pieces_of

DONE = b"data: [DONE]\n\n"

#: The name of a model in the API's responses, by its short name in requests.
SNAPSHOTS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
}

_LETTERS = string.ascii_letters + string.digits
#: The API pads each event so that its length does not reveal the token: the length of its JSON is a multiple of 16
#: bytes plus one.
_STEP = 16
_FIELD = len(',"obfuscation":""')
#: A generator of its own, so that ids do not change the state of `random` in an application that seeds it.
_chance = random.Random()

#: The pieces of one answer, used for all choices; or a list of pieces for each choice.
Pieces = Sequence[str] | Sequence[Sequence[str]]
#: `{"id", "name", "arguments"}`; the arguments are JSON as one string, or a list of its pieces.
ToolCallFields = Mapping[str, Any]


def openai_chat_frames(
    pieces: Pieces,
    *,
    model: str = "gpt-4o-mini",
    id: str = "",
    usage: bool = True,
    reasoning: Sequence[str] = (),
    tool_calls: Sequence[ToolCallFields] = (),
    finish_reason: str | None = None,
    n: int = 1,
    created: int | None = None,
    prompt_tokens: int = 14,
    obfuscation: bool = True,
) -> list[bytes]:
    """The events of one streamed chat completion. Each is the bytes of one event with the blank line at its end.

    The order is: the role, `reasoning` (in DeepSeek's fields), the text, the tool calls, the finish reason ("stop", or
    "tool_calls" when there are calls), the usage if `usage` is true, and `[DONE]`. `pieces` is one list for all `n`
    choices, or a list of `n` lists. `created` is in Unix seconds. The same arguments with the same `id` and `created`
    give the same bytes. Raises `ValueError` when the number of lists is not `n`.
    """
    encoder = _ChunkEncoder.open(id or chat_id(), model, created, usage, obfuscation)
    contents = [_ChoiceContent(part, reasoning, tool_calls) for part in each_choice(pieces, n)]
    frames = [encoder.choice(index, delta) for index, delta in _in_turn(contents)]
    frames += [encoder.choice(index, {}, finish_reason or each.finish) for index, each in enumerate(contents)]
    if usage:
        frames.append(encoder.chunk([], _usage(prompt_tokens, contents)))
    return [*frames, DONE]


def openai_chat_body(
    pieces: Pieces,
    *,
    model: str = "gpt-4o-mini",
    id: str = "",
    reasoning: Sequence[str] = (),
    tool_calls: Sequence[ToolCallFields] = (),
    finish_reason: str | None = None,
    n: int = 1,
    created: int | None = None,
    prompt_tokens: int = 14,
) -> bytes:
    """The answer of `openai_chat_frames`, not streamed: one `chat.completion`, indented as the API sends it."""
    contents = [_ChoiceContent(part, reasoning, tool_calls) for part in each_choice(pieces, n)]
    completion = {
        "id": id or chat_id(),
        "object": "chat.completion",
        "created": int(time.time()) if created is None else created,
        "model": SNAPSHOTS.get(model, model),
        "choices": [each.choice(index, finish_reason) for index, each in enumerate(contents)],
        "usage": _usage(prompt_tokens, contents),
        "service_tier": "default",
        "system_fingerprint": _fingerprint(model),
    }
    return indented(completion)


def openai_models(created: int = 1721172741) -> bytes:
    """The body of the response to GET /v1/models; `created` is in Unix seconds."""
    rest = {"object": "model", "created": created, "owned_by": "system"}
    return indented({"object": "list", "data": [{"id": name, **rest} for name in SNAPSHOTS]})


def openai_error(message: str, type: str = "server_error", code: str | None = None) -> bytes:
    """The body of an error response in the API's form."""
    return json.dumps(_error(message, type, code), indent=4).encode() + b"\n"


def openai_error_frame(message: str, type: str = "server_error", code: str | None = None) -> bytes:
    """An error during a stream. It is the last event; no `[DONE]` follows."""
    return b"data: " + compact(_error(message, type, code)) + b"\n\n"


def prompt_tokens_of(messages: Iterable[Any]) -> int:
    """An estimate of a prompt's tokens: its pieces, plus four for each message and three for the reply."""
    return 3 + sum(4 + len(pieces_of(text_of(message))) for message in messages)


def chat_id() -> str:
    """A new id in the API's form."""
    return "chatcmpl-" + "".join(_chance.choices(_LETTERS, k=29))


@dataclass(frozen=True, slots=True)
class _ChoiceContent:
    """The content of one choice."""

    pieces: Sequence[str]
    reasoning: Sequence[str]
    tool_calls: Sequence[ToolCallFields]

    @property
    def finish(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"

    @property
    def tokens(self) -> int:
        """The number of output tokens; each piece is one."""
        calls = sum(1 + len(_argument_pieces(call)) for call in self.tool_calls)
        return len(self.pieces) + len(self.reasoning) + calls

    def choice(self, index: int, finish_reason: str | None) -> dict[str, Any]:
        """The choice in an answer that is not streamed."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content()}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.tool_calls:
            message["tool_calls"] = [_complete_call(call) for call in self.tool_calls]
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
            # The API starts a single call without text in the event with the role.
            return [{"role": "assistant", "content": None, **calls[0], "refusal": None}, *calls[1:]]
        return [{"role": "assistant", "content": None}, *calls]

    def _reasoning_deltas(self) -> Iterator[dict[str, Any]]:
        """Reasoning, then text; each event has both fields, as DeepSeek sends them."""
        yield {"role": "assistant", "content": None, "reasoning_content": ""}
        yield from ({"content": None, "reasoning_content": thought} for thought in self.reasoning)
        yield from ({"content": piece, "reasoning_content": None} for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class _ChunkEncoder:
    """Encodes the events of one answer, with the fields that all of them have."""

    #: The fields before `choices`, in the order in which the API sends them.
    head: dict[str, Any]
    #: Whether events have the field `usage`, as with `stream_options.include_usage`; it is null but in the last event.
    usage: bool
    #: Whether events are padded.
    obfuscation: bool
    chance: random.Random

    @classmethod
    def open(cls, id: str, model: str, created: int | None, usage: bool, obfuscation: bool) -> _ChunkEncoder:
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
        """`body` with padding up to the next multiple of `_STEP` plus one."""
        if not self.obfuscation:
            return body
        missing = (1 - len(body) - _FIELD) % _STEP
        padding = "".join(self.chance.choices(_LETTERS, k=missing))
        return b'%b,"obfuscation":"%b"}' % (body[:-1], padding.encode())


def each_choice(pieces: Pieces, n: int) -> list[Sequence[str]]:
    """The pieces of each of `n` choices. Raises `ValueError` when there are lists, but not `n` of them."""
    shared = [piece for piece in pieces if isinstance(piece, str)]
    if len(shared) == len(pieces):
        return [shared] * n
    if len(pieces) != n:
        raise ValueError(
            f"`pieces` has {len(pieces)} lists for n={n} choices; give one list for each choice."
        )
    return list(pieces)


def _in_turn(contents: list[_ChoiceContent]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The choice's index and the delta; the choices take turns, as in the API's streams."""
    for turn in zip_longest(*(each.deltas() for each in contents)):
        yield from ((index, delta) for index, delta in enumerate(turn) if delta is not None)


def _call_deltas(index: int, call: ToolCallFields) -> Iterator[dict[str, Any]]:
    """The deltas of a tool call: first its name with empty arguments, then the pieces of the arguments."""
    function = {"name": call["name"], "arguments": ""}
    yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
    for piece in _argument_pieces(call):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _complete_call(call: ToolCallFields) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": "".join(_argument_pieces(call))}
    return {"id": call["id"], "type": "function", "function": function}


def _argument_pieces(call: ToolCallFields) -> list[str]:
    arguments = call["arguments"]
    return pieces_of(arguments) if isinstance(arguments, str) else list(arguments)


def _usage(prompt_tokens: int, contents: list[_ChoiceContent]) -> dict[str, Any]:
    """The token counts of an answer."""
    output_tokens = sum(each.tokens for each in contents)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(len(each.reasoning) for each in contents),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _error(message: str, type: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


def _fingerprint(model: str) -> str:
    """The system fingerprint; each model has one."""
    return f"fp_{random.Random(model).getrandbits(40):010x}"
