"""The accumulator: deltas of any wire format, added up to the final message of every choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recorder.jsons import loads
from recorder.messages import AIMessage, UsageMetadata
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta

#: What one reply may hold (bytes, roughly); beyond it the stream goes on and `truncated` is set.
MAX_REPLY_BYTES = 64 * 2**20
_PIECE_COST = 64
_PART_COST = 300


class Reply:
    """One response as far as it has come: parts by (idx, kind), and what the provider says about it."""

    __slots__ = (
        "_parts", "_size", "_text", "error", "finish_reasons", "logprobs", "metadata", "model", "raw_usage",
        "response_id", "terminated", "truncated", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], list[str]] = {}
        #: The pieces of the first choice's text, once there are any.
        self._text: list[str] | None = None
        self._size = 0
        #: The provider's id and model name, None until they come.
        self.response_id: str | None = None
        self.model: str | None = None
        #: What else the provider said of the response: `system_fingerprint`, `service_tier`, `created`, ...
        self.metadata: dict[str, Any] = {}
        #: `choice` -> finish reason, in the provider's word.
        self.finish_reasons: dict[int, str] = {}
        #: `choice` -> log probabilities of the tokens, as the provider sent them.
        self.logprobs: dict[int, dict[str, list[Any]]] = {}
        #: The usage in LangChain's shape and as the provider sent it; None when there was none.
        self.usage: UsageMetadata | None = None
        self.raw_usage: dict[str, Any] | None = None
        #: The error event's `error`, whatever its shape; None when there was none.
        self.error: Any = None
        #: Whether the provider's terminator came (`[DONE]`), or the answer was one whole body.
        self.terminated = False
        #: Whether the answer was longer than `MAX_REPLY_BYTES` and its end is missing here.
        self.truncated = False

    def add(self, delta: Delta) -> None:
        """Add one delta."""
        text, kind, idx = delta
        part = self._parts.get((idx, kind))
        if part is None:
            part = self._open(idx, kind)
        self._size += len(text) + _PIECE_COST
        if self._size <= MAX_REPLY_BYTES:
            part.append(text)
        else:
            self.truncated = True

    def add_text(self, text: str) -> None:
        """`add(Delta(text))`, for the most frequent delta."""
        self._size += len(text) + _PIECE_COST
        if self._size <= MAX_REPLY_BYTES and self._text is not None:
            self._text.append(text)
        else:
            self._size -= len(text) + _PIECE_COST
            self.add(Delta(text))

    def add_logprobs(self, choice: int, logprobs: dict[str, Any]) -> None:
        """Append a chunk's log probabilities (`content`, `refusal`: lists) to those of its choice."""
        for key, tokens in logprobs.items():
            if isinstance(tokens, list) and not self.truncated:
                self._size += 200 * len(tokens)
                self.truncated = self._size > MAX_REPLY_BYTES
                self.logprobs.setdefault(choice, {}).setdefault(key, []).extend(tokens)

    @property
    def choices(self) -> list[int]:
        """The numbers of the choices seen so far; [0] when nothing has come."""
        seen = {_choice(idx) for idx, _ in self._parts} | set(self.finish_reasons)
        return sorted(seen) or [0]

    def text(self, choice: int = 0, kind: str = TEXT) -> str:
        """All of one kind of a choice, joined."""
        return "".join(piece for part in self._of(choice, kind) for piece in part[1])

    def tool_calls(self, choice: int = 0) -> list[dict[str, Any]]:
        """The choice's tool calls as `{"id", "name", "arguments"}`, arguments as the text that came."""
        return [self._tool_call(idx, opened) for idx, opened in self._of(choice, TOOL_CALL)]

    def message(self, choice: int = 0) -> AIMessage:
        """The choice's final message, LangChain's shape, complete or as far as it has come."""
        calls: list[dict[str, Any]] = []
        invalid: list[dict[str, Any]] = []
        for call in self.tool_calls(choice):
            _sort_call(call, calls, invalid)
        return AIMessage(
            content=self.text(choice),
            id=self.response_id,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage_metadata=self.usage,
            additional_kwargs=self._additional(choice),
            response_metadata=self.response_metadata(choice),
        )

    def response_metadata(self, choice: int = 0) -> dict[str, Any]:
        """`finish_reason`, `model_name`, `logprobs` and whatever else the provider said, LangChain's names."""
        said: dict[str, Any] = {}
        if choice in self.finish_reasons:
            said["finish_reason"] = self.finish_reasons[choice]
        if self.model is not None:
            said["model_name"] = self.model
        said |= self.metadata
        if choice in self.logprobs:
            said["logprobs"] = self.logprobs[choice]
        if self.truncated:
            said["truncated"] = True
        return said

    def _additional(self, choice: int) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if reasoning := self.text(choice, REASONING):
            more["reasoning_content"] = reasoning
        if refusal := self.text(choice, REFUSAL):
            more["refusal"] = refusal
        citations = [loads(piece) for _, part in self._of(choice, CITATION) for piece in part]
        if citations:
            more["annotations"] = citations
        for _, part in self._of(choice, OTHER):
            for piece in part:
                more = merge_other(more, piece)
        return more

    def _open(self, idx: str, kind: str) -> list[str]:
        self._size += _PART_COST
        part: list[str] = []
        if self._size <= MAX_REPLY_BYTES:
            self._parts[(idx, kind)] = part
            if (idx, kind) == ("0", TEXT):
                self._text = part
        return part

    def _of(self, choice: int, kind: str) -> Iterator[tuple[str, list[str]]]:
        for (idx, its_kind), part in self._parts.items():
            if its_kind == kind and _choice(idx) == choice:
                yield idx, part

    def _tool_call(self, idx: str, opened: list[str]) -> dict[str, Any]:
        call: dict[str, Any] = {"id": None, "name": None}
        for piece in opened:
            for key, value in loads(piece).items():
                call[key] = value if not isinstance(call.get(key), str) else call[key] + value
        call["arguments"] = "".join(self._parts.get((idx, TOOL_ARGS), ()))
        return call


def merge_other(into: dict[str, Any], piece: str) -> dict[str, Any]:
    """`additional_kwargs` with the content of an `other` delta: lists grow, later values win."""
    try:
        found = loads(piece)
    except ValueError:
        return into
    for key, value in found.items():
        have = into.get(key)
        into[key] = have + value if isinstance(have, list) and isinstance(value, list) else value
    return into


def _choice(idx: str) -> int:
    return int(idx.partition(".")[0])


def _sort_call(call: dict[str, Any], calls: list[dict[str, Any]], invalid: list[dict[str, Any]]) -> None:
    """Into `tool_calls` when the arguments are a JSON object, else into `invalid_tool_calls`."""
    text = call["arguments"]
    try:
        args = loads(text) if text else {}
    except ValueError as error:
        args, why = None, str(error)
    else:
        why = "the arguments are not a JSON object"
    if isinstance(args, dict):
        calls.append({"name": call["name"] or "", "args": args, "id": call["id"], "type": "tool_call"})
        return
    broken = {"name": call["name"], "args": text, "id": call["id"], "error": why, "type": "invalid_tool_call"}
    invalid.append(broken)
