"""Decodes OpenAI chat completions, and the dialects of compatible providers, to deltas.

What the dialects change:

* reasoning: `reasoning_content` (DeepSeek, Z.ai), `reasoning` (OpenRouter, Groq), other or two names (vLLM),
  or `reasoning_details` (MiniMax);
* usage: in `x_groq`, or in a choice (Moonshot);
* content: a list of blocks (Mistral), or the message so far beside each delta (Perplexity);
* errors: an event named `error` (Groq), or a key beside the choices (OpenRouter);
* tool calls: no index (Mistral), the same index for all (Gemini), or a new id in each chunk (vLLM).

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recorder.core.json import dumps, loads
from recorder.wire.deltas import (
    CITATION,
    OTHER,
    REASONING,
    REFUSAL,
    TEXT,
    TOOL_ARGS,
    TOOL_CALL,
    Delta,
    as_text,
)
from recorder.wire.openai.events import FILTER_RESULTS, PLAIN_KEYS, OpenAIEvents, get_or_none
from recorder.wire.reasoning import DETAILS, FIELDS, IN_CONTENT, texts_of
from recorder.wire.repeated_answer import rest_of
from recorder.wire.reply import MAX_CHOICES
from recorder.wire.tool_calls import StreamedCall, StreamedCalls
from recorder.wire.usage import PLACES

WIRE = "openai.chat"

_EMPTY: dict[str, Any] = {}
#: The keys that all providers send of a tool call, and of its function.
_CALL_KEYS = frozenset(("index", "id", "type", "function", "custom"))
_FUNCTION_KEYS = frozenset(("name", "arguments", "input"))


class OpenAIChat(OpenAIEvents):
    """Translates the frames of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._calls = StreamedCalls()
        #: Numbers of the choices that are streamed as `message` objects in place of deltas.
        self._message_pieces: set[int] = set()

    @staticmethod
    def _is_unstreamed(choice: dict[str, Any]) -> bool:
        return "message" in choice

    @staticmethod
    def _plain_text(event: Any) -> str | None:
        try:
            (choice,) = event["choices"]
            delta = choice["delta"]
            text = delta["content"]
            if (
                len(delta) == 1
                and type(text) is str
                and text
                and choice["index"] == 0
                and not choice.get("finish_reason")
                and not choice.get("logprobs")
                and FILTER_RESULTS not in choice
                and "error" not in choice
                and not event.get("usage")
                and PLAIN_KEYS.issuperset(event)
            ):
                return text
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        return None

    def _decode_content(
        self, choice: dict[str, Any], number: int, idx: str, deltas: list[Delta], is_last: bool,
        is_unstreamed: bool,
    ) -> None:  # fmt: skip
        delta, before = choice.get("delta"), len(deltas)
        if delta and not is_unstreamed:
            self._read(delta, idx, deltas, is_last)
        elif delta:
            self._message(delta, number, idx, deltas, is_last=True)
        # Next to a delta with content, the message only repeats what was sent so far (Perplexity).
        if len(deltas) == before and (message := choice.get("message")):
            self._message(message, number, idx, deltas, is_last=is_last)

    def _read(self, fields: dict[str, Any], idx: str, deltas: list[Delta], is_last: bool = False) -> None:
        for key, value in fields.items():
            if key == "content" and type(value) is str:
                if value:
                    deltas.append(Delta(value, TEXT, idx))
            elif key == "tool_calls":
                if value is not None:
                    self._tool_calls(idx, value, deltas, is_last=is_last)
            elif value is not None and key != "role":
                _PARTS.get(key, OpenAIChat._unknown)(self, idx, key, fields, deltas)

    def _message(
        self, message: dict[str, Any], number: int, idx: str, deltas: list[Delta], *, is_last: bool
    ) -> None:
        """Decodes a message that stands in place of a delta.

        It is the complete answer, alone or after its pieces. With some servers it is one piece of the answer.
        """
        content, known = message.get("content"), "".join(self.reply.pieces(idx, TEXT))
        repeats_known = bool(known) and isinstance(content, str) and content.startswith(known)
        begun = self.reply.has_begun(number)
        if begun and not repeats_known and (not is_last or number in self._message_pieces):
            self._read(message, idx, deltas)
            return
        if not is_last and len(self._message_pieces) < MAX_CHOICES:
            self._message_pieces.add(number)
        fresh: list[Delta] = []
        self._read({**message, "tool_calls": None}, idx, fresh)
        deltas += self._missing_from_pieces(number, idx, fresh) if begun else fresh
        self._complete_calls(idx, message.get("tool_calls"), deltas)

    def _complete_calls(self, idx: str, calls: Any, deltas: list[Delta]) -> None:
        """Adds what the calls of a complete answer have beyond the pieces streamed before."""
        assigned: list[StreamedCall] = []
        for position, call in enumerate(_as_list(calls)):
            function = _function_of(call)
            known = self._calls.at_position(idx, position, call.get("id"), assigned)
            assigned.append(known)
            arguments = _arguments_of(function)
            streamed = "".join(self.reply.pieces(known.idx, TOOL_ARGS))
            rest = rest_of(arguments, streamed) if streamed else arguments
            self._tool_call(known, call, function, rest, deltas)

    def _blocks(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes content that is a list of blocks: text, thinking and other types."""
        blocks = fields[key] if isinstance(fields[key], list) else [fields[key]]
        deltas.extend(Delta(text, kind, idx) for text, kind in map(_block, blocks) if text)
        if any(isinstance(get_or_none(block, "thinking"), list) for block in blocks):
            self.reply.add_reasoning_field(idx, IN_CONTENT)

    def _refusal(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes a refusal: a text or blocks of text. Any other value is added as JSON."""
        if text := _joined_text(fields[key]):
            deltas.append(Delta(text, REFUSAL, idx))

    def _reasoning(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes a reasoning field. The same text in two fields of one event is added once."""
        text = fields[key]
        if key == FIELDS[0]:
            text = _joined_text(text)
        if not isinstance(text, str):
            self._unknown(idx, key, fields, deltas)
        elif text:
            self.reply.add_reasoning_field(idx, key)
            if all(fields.get(name) != text for name in FIELDS[: FIELDS.index(key)]):
                deltas.append(Delta(text, REASONING, idx))

    def _tool_calls(self, idx: str, pieces: Any, deltas: list[Delta], *, is_last: bool) -> None:
        for piece in _as_list(pieces):
            function = _function_of(piece)
            arguments = _arguments_of(function)
            call = self._calls.place(
                idx, piece.get("index"), piece.get("id"), function.get("name"), arguments, is_last=is_last
            )
            if call is not None:
                self._tool_call(call, piece, function, arguments, deltas)

    def _tool_call(
        self,
        call: StreamedCall,
        piece: dict[str, Any],
        function: dict[str, Any],
        arguments: str,
        deltas: list[Delta],
    ) -> None:
        extras = _EMPTY
        if not _CALL_KEYS.issuperset(piece) or not _FUNCTION_KEYS.issuperset(function):
            extras = _extras(piece, function)
        changes = call.changes(piece.get("id"), function.get("name"), extras)
        if changes or not call.is_open:
            call.is_open = True
            deltas.append(Delta(dumps(changes), TOOL_CALL, call.idx))
        if arguments:
            call.arguments.add(arguments)
            deltas.append(Delta(arguments, TOOL_ARGS, call.idx))

    def _usage(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        self._set_usage(fields[key])

    def _error(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        self._set_error(fields[key] or None)

    def _annotations(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        annotations = fields[key] if isinstance(fields[key], list) else [fields[key]]
        deltas.extend(Delta(dumps(annotation), CITATION, idx) for annotation in annotations)

    def _reasoning_details(self, idx: str, key: str, fields: dict[str, Any], deltas: list[Delta]) -> None:
        """Decodes reasoning in parts, with signatures and encrypted data.

        All parts are kept, because the provider requires them back. Their texts become reasoning only if no other
        reasoning field of the event is a string, not even an empty one.
        """
        before = len(deltas)
        self._unknown(idx, key, fields, deltas)
        parts = [part for delta in deltas[before:] for part in _as_list(loads(delta.text)[key])]
        if parts:
            self.reply.add_reasoning_field(idx, DETAILS)
        if not any(isinstance(fields.get(name), str) for name in FIELDS):
            deltas.extend(Delta(text, REASONING, idx) for text in texts_of(parts))


def _block(block: Any) -> tuple[str, str]:
    """The text and the kind of the delta for a content block."""
    if isinstance(block, str):
        return block, TEXT
    kind, inner = get_or_none(block, "type"), get_or_none(block, "text")
    if kind == "text" and isinstance(inner, str):
        return inner, TEXT
    if kind == "thinking" and (thinking := _thinking_text(block.get("thinking"))) is not None:
        return thinking, REASONING
    is_plain = kind == "reasoning" and block.keys() == {"type", "summary"}
    if is_plain and (summary := _thinking_text(block["summary"])) is not None:
        return summary, REASONING
    return dumps({"content": [block]}), OTHER


def _joined_text(value: Any) -> str:
    """The value as one text: blocks of text are joined, null is empty, any other value becomes JSON."""
    if isinstance(value, str) or not value:
        return value or ""
    blocks = value if isinstance(value, list) else [value]
    texts = [
        block if isinstance(block, str) else get_or_none(block, "refusal") or get_or_none(block, "text")
        for block in blocks
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else dumps(value)


def _thinking_text(inner: Any) -> str | None:
    """The text of a thinking block, which may be split into blocks of text; None if it holds anything else."""
    texts = [get_or_none(part, "text") for part in inner] if isinstance(inner, list) else [inner]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _as_list(parts: Any) -> list[Any]:
    return parts if isinstance(parts, list) else [parts] if parts else []


def _function_of(call: dict[str, Any]) -> dict[str, Any]:
    return call.get("function") or call.get("custom") or _EMPTY


def _arguments_of(function: dict[str, Any]) -> str:
    arguments = function.get("arguments") or function.get("input")
    return as_text(arguments) if arguments else ""


def _extras(call: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
    """Keys of a call that not all providers send: Gemini's `extra_content` holds the signature of a thought."""
    extras = {key: call[key] for key in call.keys() - _CALL_KEYS if call[key] is not None}
    inner = {key: function[key] for key in function.keys() - _FUNCTION_KEYS if function[key] is not None}
    return {**extras, "function": inner} if inner else extras


_PARTS: dict[str, Callable[[OpenAIChat, str, str, dict[str, Any], list[Delta]], None]] = {
    "content": OpenAIChat._blocks,
    **dict.fromkeys(FIELDS, OpenAIChat._reasoning),
    "refusal": OpenAIChat._refusal,
    "error": OpenAIChat._error,
    **dict.fromkeys(PLACES, OpenAIChat._usage),
    "annotations": OpenAIChat._annotations,
    DETAILS: OpenAIChat._reasoning_details,
}
