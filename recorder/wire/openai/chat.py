"""OpenAI chat completions, and the dialects of the providers that speak it, to deltas.

Dialects: reasoning as `reasoning_content` (DeepSeek, Z.ai) or `reasoning` (OpenRouter, Groq), under other names or
under two of them (vLLM), or in `reasoning_details` (MiniMax); usage in `x_groq` or in a choice (Moonshot), content as
a list of blocks (Mistral), errors as an event named `error` (Groq) or beside the choices (OpenRouter), the message so
far beside each delta (Perplexity), tool calls without an index (Mistral), with the same one for all (Gemini) or with a
new id in each chunk (vLLM).
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recorder.core.json import dumps, loads
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.openai.events import FILTERED, PLAIN_KEYS, OpenAIEvents, of
from recorder.wire.repeats import rest_of
from recorder.wire.reply import MAX_CHOICES
from recorder.wire.thoughts import DETAILS, FIELDS, IN_CONTENT, texts_of
from recorder.wire.tool_calls import Call, Calls
from recorder.wire.usage import PLACES

WIRE = "openai.chat"

_EMPTY: dict[str, Any] = {}
#: What every tool call has, and its function.
_CALL_KEYS = frozenset(("index", "id", "type", "function", "custom"))
_FUNCTION_KEYS = frozenset(("name", "arguments", "input"))


class OpenAIChat(OpenAIEvents):
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._calls = Calls()
        #: Choices whose pieces come as messages.
        self._in_pieces: set[int] = set()

    @staticmethod
    def _is_whole(choice: dict[str, Any]) -> bool:
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
                and FILTERED not in choice
                and "error" not in choice
                and not event.get("usage")
                and PLAIN_KEYS.issuperset(event)
            ):
                return text
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        return None

    def _content(
        self, choice: dict[str, Any], number: int, idx: str, found: list[Delta], closing: bool, whole: bool
    ) -> None:
        delta, before = choice.get("delta"), len(found)
        if delta and not whole:
            self._read(delta, idx, found, closing)
        elif delta:
            self._message(delta, number, idx, found, closing=True)
        # Beside a delta that says something the message is all that came so far (Perplexity).
        if len(found) == before and (message := choice.get("message")):
            self._message(message, number, idx, found, closing=closing)

    def _read(self, said: dict[str, Any], idx: str, found: list[Delta], closing: bool = False) -> None:
        for key, value in said.items():
            if key == "content" and type(value) is str:
                if value:
                    found.append(Delta(value, TEXT, idx))
            elif key == "tool_calls":
                if value is not None:
                    self._tool_calls(idx, value, found, closing=closing)
            elif value is not None and key != "role":
                _PARTS.get(key, OpenAIChat._unknown)(self, idx, key, said, found)

    def _message(
        self, message: dict[str, Any], number: int, idx: str, found: list[Delta], *, closing: bool
    ) -> None:
        """A message in place of a delta: the whole answer, alone or after its pieces; or a piece, with some servers."""
        content, known = message.get("content"), "".join(self.reply.pieces(idx, TEXT))
        goes_on = bool(known) and isinstance(content, str) and content.startswith(known)
        begun = self.reply.has_begun(number)
        if begun and not goes_on and (not closing or number in self._in_pieces):
            self._read(message, idx, found)
            return
        if not closing and len(self._in_pieces) < MAX_CHOICES:
            self._in_pieces.add(number)
        fresh: list[Delta] = []
        self._read({**message, "tool_calls": None}, idx, fresh)
        found += self._beyond(number, idx, fresh) if begun else fresh
        self._whole_calls(idx, message.get("tool_calls"), found)

    def _whole_calls(self, idx: str, listed: Any, found: list[Delta]) -> None:
        claimed: list[Call] = []
        for position, call in enumerate(_listed(listed)):
            function = _function(call)
            known = self._calls.whole(idx, position, call.get("id"), claimed)
            claimed.append(known)
            arguments = _arguments(function)
            so_far = "".join(self.reply.pieces(known.idx, TOOL_ARGS))
            rest = rest_of(arguments, so_far) if so_far else arguments
            self._tool_call(known, call, function, rest, found)

    def _blocks(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """Content as a list of blocks: text, thinking, and what else there may be."""
        blocks = said[key] if isinstance(said[key], list) else [said[key]]
        found.extend(Delta(text, kind, idx) for text, kind in map(_block, blocks) if text)
        if any(isinstance(of(block, "thinking"), list) for block in blocks):
            self.reply.thought_as(idx, IN_CONTENT)

    def _refusal(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """A refusal, as a text or in blocks of text; of anything else its JSON."""
        if text := _words(said[key]):
            found.append(Delta(text, REFUSAL, idx))

    def _thoughts(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """Reasoning under one of its names; a text that comes under two of them counts once."""
        text = said[key]
        if key == FIELDS[0]:
            text = _words(text)
        if not isinstance(text, str):
            self._unknown(idx, key, said, found)
        elif text:
            self.reply.thought_as(idx, key)
            if all(said.get(name) != text for name in FIELDS[: FIELDS.index(key)]):
                found.append(Delta(text, REASONING, idx))

    def _tool_calls(self, idx: str, listed: Any, found: list[Delta], *, closing: bool) -> None:
        for piece in _listed(listed):
            function = _function(piece)
            arguments = _arguments(function)
            call = self._calls.place(
                idx, piece.get("index"), piece.get("id"), function.get("name"), arguments, closing=closing
            )
            if call is not None:
                self._tool_call(call, piece, function, arguments, found)

    def _tool_call(
        self, call: Call, piece: dict[str, Any], function: dict[str, Any], arguments: str, found: list[Delta]
    ) -> None:
        extras = _EMPTY
        if not _CALL_KEYS.issuperset(piece) or not _FUNCTION_KEYS.issuperset(function):
            extras = _extras(piece, function)
        news = call.news(piece.get("id"), function.get("name"), extras)
        if news or not call.is_open:
            call.is_open = True
            found.append(Delta(dumps(news), TOOL_CALL, call.idx))
        if arguments:
            call.arguments.add(arguments)
            found.append(Delta(arguments, TOOL_ARGS, call.idx))

    def _usage(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        self._spent(said[key])

    def _error(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        self._stated(said[key] or None)

    def _annotations(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        annotations = said[key] if isinstance(said[key], list) else [said[key]]
        found.extend(Delta(dumps(annotation), CITATION, idx) for annotation in annotations)

    def _reasoning_details(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """Reasoning in parts with signatures and encrypted data. All of it is kept, because its provider wants it back.

        Its text is reasoning only in an event that has no text, not even an empty one, in another field of reasoning.
        """
        before = len(found)
        self._unknown(idx, key, said, found)
        news = [part for delta in found[before:] for part in _listed(loads(delta.text)[key])]
        if news:
            self.reply.thought_as(idx, DETAILS)
        if not any(isinstance(said.get(name), str) for name in FIELDS):
            found.extend(Delta(text, REASONING, idx) for text in texts_of(news))


def _block(block: Any) -> tuple[str, str]:
    """Text and kind of a block of content."""
    if isinstance(block, str):
        return block, TEXT
    kind, inner = of(block, "type"), of(block, "text")
    if kind == "text" and isinstance(inner, str):
        return inner, TEXT
    if kind == "thinking" and (thought := _thought(block.get("thinking"))) is not None:
        return thought, REASONING
    is_plain = kind == "reasoning" and block.keys() == {"type", "summary"}
    if is_plain and (thought := _thought(block["summary"])) is not None:
        return thought, REASONING
    return dumps({"content": [block]}), OTHER


def _words(value: Any) -> str:
    """The text of what should be one: of blocks of text theirs, of anything else its JSON, of nothing none."""
    if isinstance(value, str) or not value:
        return value or ""
    blocks = value if isinstance(value, list) else [value]
    texts = [
        block if isinstance(block, str) else of(block, "refusal") or of(block, "text") for block in blocks
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else dumps(value)


def _thought(inner: Any) -> str | None:
    """The text of a thinking block, in one or in blocks of text; None where it holds anything else."""
    texts = [of(part, "text") for part in inner] if isinstance(inner, list) else [inner]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _listed(parts: Any) -> list[Any]:
    return parts if isinstance(parts, list) else [parts] if parts else []


def _function(call: dict[str, Any]) -> dict[str, Any]:
    return call.get("function") or call.get("custom") or _EMPTY


def _arguments(function: dict[str, Any]) -> str:
    arguments = function.get("arguments") or function.get("input")
    return _as_text(arguments) if arguments else ""


def _extras(call: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
    """What is said of a call beside what all calls have: Gemini's `extra_content` has the signature of a thought."""
    found = {key: call[key] for key in call.keys() - _CALL_KEYS if call[key] is not None}
    inner = {key: function[key] for key in function.keys() - _FUNCTION_KEYS if function[key] is not None}
    return {**found, "function": inner} if inner else found


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


_PARTS: dict[str, Callable[[OpenAIChat, str, str, dict[str, Any], list[Delta]], None]] = {
    "content": OpenAIChat._blocks,
    **dict.fromkeys(FIELDS, OpenAIChat._thoughts),
    "refusal": OpenAIChat._refusal,
    "error": OpenAIChat._error,
    **dict.fromkeys(PLACES, OpenAIChat._usage),
    "annotations": OpenAIChat._annotations,
    DETAILS: OpenAIChat._reasoning_details,
}
