"""OpenAI chat completions, and the dialects of the providers that speak it, to deltas.

Dialects: reasoning as `reasoning_content` (DeepSeek, Z.ai) or `reasoning` (OpenRouter, Groq), usage in `x_groq`,
content as a list of blocks (Mistral), errors as an event named `error` (Groq) or beside the choices (OpenRouter).
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from recorder import usage
from recorder.jsons import dumps, loads
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.reply import Reply
from recorder.wire.sse import parse

WIRE = "openai.chat"

_NOTHING: tuple[Delta, ...] = ()
_new_delta = tuple.__new__  # half the time of the named tuple's own
#: Keys of an event that are read, or that say nothing of the answer.
_METADATA_KEYS = ("system_fingerprint", "service_tier", "provider")
_EVENT_KEYS = frozenset(
    (
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "x_groq",
        "error",
        "obfuscation",
        *_METADATA_KEYS,
    )
)
#: The keys of an event that may be nothing but text.
_PLAIN_KEYS = _EVENT_KEYS - {"x_groq", "error"}
#: Longer undecodable frames are kept in full as frames only.
_MAX_OTHER = 64 * 1024
_MAX_SAID = 10_000


class OpenAIChat:
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        self.reply = Reply()
        self._calls: dict[int, int] = {}
        self._said: dict[tuple[str, str], Any] = {}

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """The deltas of one frame; a frame that starts with `{` is a whole answer that was not streamed."""
        event: Any = None
        if frame.startswith(b"data: {"):
            try:
                event = orjson.loads(frame[6:])
            except orjson.JSONDecodeError:
                pass  # several lines, or JSON that only the slow way reads
            else:
                if (text := _plain_text(event)) is not None:
                    self.reply.add_text(text)
                    return (_new_delta(Delta, (text, TEXT, "0")),)
        return self._decode(frame, event)

    def _decode(self, frame: bytes, event: Any) -> Sequence[Delta]:
        data = frame if frame.startswith(b"{") else parse(frame).data
        if data is None:
            return _NOTHING
        found: list[Delta] = []
        try:
            self._event(loads(data) if event is None else event, found)
        except (
            Exception
        ):  # whatever a provider may send, the recording goes on and the frame says what it was
            if data.startswith(b"[DONE]"):
                self.reply.terminated = True
                return _NOTHING
            text = data[:_MAX_OTHER].decode("utf-8", "replace")
            found.append(Delta(dumps({"undecodable": text}), OTHER))
        for delta in found:
            self.reply.add(delta)
        return found

    def _event(self, event: dict[str, Any], found: list[Delta]) -> None:
        reply = self.reply
        if event.get("error"):
            reply.error = event["error"]
        for choice in event.get("choices") or _NOTHING:
            self._choice(choice, found)
        if reply.response_id is None or reply.model is None or reply.finish_reasons:
            self._head(event)
        if not event.keys() <= _EVENT_KEYS:
            self._more(event, found)
        if spent := event.get("usage") or (event.get("x_groq") or {}).get("usage"):
            reply.raw_usage = spent
            reply.usage = usage.from_openai(spent)

    def _head(self, event: dict[str, Any]) -> None:
        """What describes the response; the first events and the last say it."""
        reply = self.reply
        reply.response_id = reply.response_id or event.get("id")
        reply.model = event.get("model") or reply.model
        for key in _METADATA_KEYS:
            if (value := event.get(key)) is not None:
                reply.metadata[key] = value

    def _more(self, event: dict[str, Any], found: list[Delta]) -> None:
        """Keys beside the known ones; structures are content (moderation results), the rest is noise."""
        for key in event.keys() - _EVENT_KEYS:
            if isinstance(event[key], (dict, list)):
                found.append(Delta(dumps({key: event[key]}), OTHER))

    def _choice(self, choice: dict[str, Any], found: list[Delta]) -> None:
        number = int(choice.get("index") or 0)
        if reason := choice.get("finish_reason"):
            self.reply.finish_reasons[number] = str(reason)
        if logprobs := choice.get("logprobs"):
            self.reply.add_logprobs(number, logprobs)
        if "message" in choice:
            self.reply.terminated = True
        idx = "0" if number == 0 else str(number)
        for key, value in (choice.get("delta") or choice.get("message") or {}).items():
            if key == "content" and type(value) is str:
                if value:
                    found.append(Delta(value, TEXT, idx))
            elif value is not None and key != "role":
                _PARTS.get(key, OpenAIChat._unknown)(self, number, key, value, found)

    def _content(self, number: int, key: str, blocks: Any, found: list[Delta]) -> None:
        """Content as a list of blocks: text, thinking, and what else there may be."""
        for block in [blocks] if isinstance(blocks, dict) else blocks:
            if block.get("type") == "text":
                found.append(Delta(block["text"], TEXT, str(number)))
            elif block.get("type") == "thinking":
                inner = block.get("thinking") or ()
                text = inner if isinstance(inner, str) else "".join(part.get("text", "") for part in inner)
                found.append(Delta(text, REASONING, str(number)))
            else:
                found.append(Delta(dumps({"content": [block]}), OTHER, str(number)))

    def _reasoning(self, number: int, key: str, text: Any, found: list[Delta]) -> None:
        if not isinstance(text, str):
            self._unknown(number, key, text, found)
        elif text:
            found.append(Delta(text, REASONING, str(number)))

    def _refusal(self, number: int, key: str, text: Any, found: list[Delta]) -> None:
        if text:
            found.append(Delta(text, REFUSAL, str(number)))

    def _tool_calls(self, number: int, key: str, calls: Any, found: list[Delta]) -> None:
        for position, call in enumerate(calls):
            part = self._part(number, call, position)
            self._tool_call(f"{number}.{part}", call.get("id"), call.get("function") or {}, found)

    def _function_call(self, number: int, key: str, function: Any, found: list[Delta]) -> None:
        """The deprecated `function_call`: a tool call without an id."""
        self._tool_call(f"{number}.function", None, function, found)

    def _tool_call(self, idx: str, call_id: str | None, function: Any, found: list[Delta]) -> None:
        opening = {"id": call_id, "name": function.get("name")}
        # Some providers repeat id and name in every chunk; what was said before is not said again.
        news = {key: value for key, value in opening.items() if value and self._is_news((idx, key), value)}
        if news or self._is_news((idx, "open"), True):
            self._is_news((idx, "open"), True)
            found.append(Delta(dumps(news), TOOL_CALL, idx))
        if arguments := function.get("arguments"):
            text = arguments if isinstance(arguments, str) else dumps(arguments)
            found.append(Delta(text, TOOL_ARGS, idx))

    def _part(self, number: int, call: dict[str, Any], position: int) -> int:
        """The call's `index`; providers that leave it out mean a new call where an id comes, else the last."""
        index = call.get("index")
        if type(index) is not int:
            last = self._calls.get(number, -1)
            index = last + 1 if call.get("id") or last < 0 else last
        self._calls[number] = max(index, self._calls.get(number, -1))
        return index

    def _annotations(self, number: int, key: str, annotations: Any, found: list[Delta]) -> None:
        found.extend(Delta(dumps(annotation), CITATION, str(number)) for annotation in annotations)

    def _reasoning_details(self, number: int, key: str, details: Any, found: list[Delta]) -> None:
        """OpenRouter repeats the reasoning text in here; only signatures and encrypted data are news."""
        news = [part for part in details if part.get("signature") or part.get("data")]
        if news:
            found.append(Delta(dumps({key: news}), OTHER, str(number)))

    def _unknown(self, number: int, key: str, value: Any, found: list[Delta]) -> None:
        """A key nobody told us about: kept, a repeated plain value (Groq's `channel`) only when it changes."""
        if isinstance(value, (dict, list)) or self._is_news((str(number), key), value):
            found.append(Delta(dumps({key: value}), OTHER, str(number)))

    def _is_news(self, what: tuple[str, str], value: Any) -> bool:
        """Whether the value differs from the last one said; a stream of ever new names is not remembered."""
        if self._said.get(what) == value:
            return False
        if len(self._said) < _MAX_SAID:
            self._said[what] = value
        return True


def _plain_text(event: Any) -> str | None:
    """The text of an event that says nothing else, as most of a stream does; None for every other."""
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
            and not event.get("usage")
            and event.keys() <= _PLAIN_KEYS
        ):
            return text
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return None


_PARTS: dict[str, Callable[[OpenAIChat, int, str, Any, list[Delta]], None]] = {
    "content": OpenAIChat._content,
    "reasoning_content": OpenAIChat._reasoning,
    "reasoning": OpenAIChat._reasoning,
    "refusal": OpenAIChat._refusal,
    "tool_calls": OpenAIChat._tool_calls,
    "function_call": OpenAIChat._function_call,
    "annotations": OpenAIChat._annotations,
    "reasoning_details": OpenAIChat._reasoning_details,
}
