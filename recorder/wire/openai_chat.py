"""OpenAI chat completions, and the dialects of the providers that speak it, to deltas.

Dialects: reasoning as `reasoning_content` (DeepSeek, Z.ai) or `reasoning` (OpenRouter, Groq) or both (vLLM),
usage in `x_groq` or in a choice (Moonshot), content as a list of blocks (Mistral), errors as an event named
`error` (Groq) or beside the choices (OpenRouter), the message so far beside each delta (Perplexity), tool
calls without an index (Mistral), with the same one for all (Gemini) or with a new id in each chunk (vLLM).
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
from recorder.wire.sse import BOM, Event, parse

WIRE = "openai.chat"

_NOTHING: tuple[Delta, ...] = ()
_new_delta = tuple.__new__  # half the time of the named tuple's own
_METADATA_KEYS = ("system_fingerprint", "service_tier", "provider")
#: Keys of an event that are read, or that say nothing of the answer.
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
#: Longer undecodable frames (bytes) are kept in full as frames only.
_MAX_OTHER = 64 * 1024
#: Of how many names is remembered what was said of them last; a stream may go on inventing new ones.
_MAX_SAID = 10_000


class OpenAIChat:
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        self.reply = Reply()
        #: Whether text may take the short way: after the first choice, whose event says more, up to the terminator.
        self._flowing = False
        self._calls = _Calls()
        #: Hash of a name -> hash of what was said of it last.
        self._said: dict[int, int] = {}

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """The deltas of one frame, none after the terminator.

        A frame that starts with `{` is a whole answer that was not streamed.
        """
        event: Any = None
        if self._flowing and frame.startswith(b"data: {"):
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
        if self.reply.terminated:
            return _NOTHING
        found: list[Delta] = []
        try:
            if event is None:
                self._unusual(frame, found)
            else:
                self._event(event, found)
        except Exception:
            # Whatever a provider may send, the recording goes on, and the delta says what it was.
            data = parse(frame).data or frame
            text = data[:_MAX_OTHER].decode("utf-8", "replace")
            found.append(Delta(dumps({"undecodable": text}), OTHER))
        for delta in found:
            self.reply.add(delta)
        return found

    def _unusual(self, frame: bytes, found: list[Delta]) -> None:
        """The first frame, and each that is not one line of JSON."""
        reply = self.reply
        body = frame.removeprefix(BOM).lstrip()
        whole = body.startswith(b"{")
        data, name, _ = Event(body) if whole else parse(frame)
        if data is None or not data.strip():
            return
        if data.startswith(b"[DONE]"):
            self._end()
            return
        if name == "error":
            reply.error = data.decode("utf-8", "replace")
            reply.error = loads(data) or reply.error
        event = loads(data)
        self._event(event, found)
        if whole and any("message" in choice for choice in event.get("choices") or ()):
            self._end()

    def _end(self) -> None:
        self.reply.terminated = True
        self._flowing = False

    def _event(self, event: dict[str, Any], found: list[Delta]) -> None:
        reply = self.reply
        if error := event.get("error"):
            reply.error = error
        for choice in event.get("choices") or ():
            self._choice(choice, found)
        if reply.response_id is None or reply.model is None or reply.finish_reasons:
            self._head(event)
        if not _EVENT_KEYS.issuperset(event):
            self._more(event, found)
        self._spent(event.get("usage") or _of(event.get("x_groq"), "usage"))

    def _head(self, event: dict[str, Any]) -> None:
        """What describes the response; the first events and the last say it."""
        reply = self.reply
        reply.response_id = reply.response_id or _text_or_none(event.get("id"))
        reply.model = reply.model or _text_or_none(event.get("model"))
        for key in _METADATA_KEYS:
            if (value := event.get(key)) is not None:
                reply.metadata[key] = value

    def _more(self, event: dict[str, Any], found: list[Delta]) -> None:
        """Keys beside the known ones; structures are content (moderation results), the rest is noise."""
        for key in event.keys() - _EVENT_KEYS:
            if isinstance(event[key], (dict, list)) and self._is_news(("", key), event[key]):
                found.append(Delta(dumps({key: event[key]}), OTHER))

    def _spent(self, spent: Any) -> None:
        if spent and isinstance(spent, dict):
            self.reply.raw_usage = spent
            self.reply.usage = usage.from_openai(spent)

    def _choice(self, choice: dict[str, Any], found: list[Delta]) -> None:
        self._flowing = True
        number = int(choice.get("index") or 0)
        if reason := choice.get("finish_reason"):
            self.reply.finish(number, str(reason))
        if logprobs := choice.get("logprobs"):
            self.reply.add_logprobs(number, logprobs)
        self._spent(choice.get("usage"))
        # Beside a delta the message is all that came so far.
        said = choice.get("delta")
        if said is None:
            said = choice.get("message") or {}
        idx = "0" if number == 0 else str(number)
        for key, value in said.items():
            if key == "content" and type(value) is str:
                if value:
                    found.append(Delta(value, TEXT, idx))
            elif value is not None and key != "role":
                _PARTS.get(key, OpenAIChat._unknown)(self, idx, key, said, found)

    def _content(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """Content as a list of blocks: text, thinking, and what else there may be."""
        blocks = said[key] if isinstance(said[key], list) else [said[key]]
        found.extend(Delta(text, kind, idx) for text, kind in map(_block, blocks) if text)

    def _text(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """Reasoning or a refusal."""
        text = said[key]
        if not isinstance(text, str):
            self._unknown(idx, key, said, found)
        elif text and (key != "reasoning" or said.get("reasoning_content") != text):
            found.append(Delta(text, REFUSAL if key == "refusal" else REASONING, idx))

    def _tool_calls(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        for call in said[key] if isinstance(said[key], list) else [said[key]]:
            function = call.get("function") or call.get("custom") or {}
            part = self._calls.part(idx, call.get("index"), call.get("id"), function.get("name"))
            self._tool_call(f"{idx}.{part}", call.get("id"), function, found)

    def _tool_call(self, idx: str, call_id: Any, function: dict[str, Any], found: list[Delta]) -> None:
        # Some providers repeat the name or invent another id in each chunk; what was said is not said again.
        news = {}
        if call_id and self._is_news((idx, "id"), True):
            news["id"] = _as_text(call_id)
        if (name := function.get("name")) and self._is_news((idx, "name"), name):
            news["name"] = _as_text(name)
        opens = self._is_news((idx, "open"), True)
        if news or opens:
            found.append(Delta(dumps(news), TOOL_CALL, idx))
        if arguments := function.get("arguments") or function.get("input"):
            found.append(Delta(_as_text(arguments), TOOL_ARGS, idx))

    def _annotations(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        annotations = said[key] if isinstance(said[key], list) else [said[key]]
        found.extend(Delta(dumps(annotation), CITATION, idx) for annotation in annotations)

    def _reasoning_details(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """OpenRouter repeats the reasoning text in here; then only signatures and encrypted data are news."""
        news = said[key]
        if "reasoning" in said or "reasoning_content" in said:
            news = [part for part in news if part.get("signature") or part.get("data")]
        if news:
            found.append(Delta(dumps({key: news}), OTHER, idx))

    def _unknown(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        """A key nobody told us about: kept, a repeated plain value (Groq's `channel`) only when it changes."""
        if isinstance(said[key], (dict, list)) or self._is_news((idx, key), said[key]):
            found.append(Delta(dumps({key: said[key]}), OTHER, idx))

    def _is_news(self, what: tuple[str, str], value: Any) -> bool:
        """Whether the value differs from the last one said; only hashes are kept, values may be long."""
        name, said = hash(what), hash(dumps(value))
        if self._said.get(name) == said:
            return False
        if name in self._said or len(self._said) < _MAX_SAID:
            self._said[name] = said
        return True


class _Calls:
    """To which tool call a piece belongs."""

    def __init__(self) -> None:
        #: (idx of the choice, the provider's index or what else identifies a call) -> its number, its id.
        self._open: dict[tuple[str, Any], tuple[int, Any]] = {}
        #: idx of the choice -> the highest number so far.
        self._highest: dict[str, int] = {}

    def part(self, idx: str, index: Any, call_id: Any, name: Any) -> int:
        """The number of the call, which is its index unless the provider gives it to several or to none."""
        if type(index) is not int:
            return self._without_index(idx, call_id or name)
        number, known = self._open.get((idx, index), (None, None))
        # Another call begins with another id and a name; an id alone may be another in each chunk.
        if number is None or (name and known and call_id and call_id != known):
            number, known = self._next(idx, index), None
        self._keep(idx, index, number, known or call_id)
        return number

    def _without_index(self, idx: str, who: Any) -> int:
        """The call of that id, or name, or else the last one."""
        key = _as_text(who) if who else None
        number, _ = self._open.get((idx, key), (None, None))
        if number is None:
            number = self._next(idx, 0)
        self._keep(idx, key, number, who)
        self._keep(idx, None, number, who)
        return number

    def _next(self, idx: str, least: int) -> int:
        return max(self._highest.get(idx, -1) + 1, least)

    def _keep(self, idx: str, key: Any, number: int, call_id: Any) -> None:
        if len(self._open) < _MAX_SAID or (idx, key) in self._open:
            self._open[idx, key] = number, call_id
            self._highest[idx] = max(number, self._highest.get(idx, -1))


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
            and _PLAIN_KEYS.issuperset(event)
        ):
            return text
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return None


def _block(block: Any) -> tuple[str, str]:
    """Text and kind of a block of content."""
    if isinstance(block, str):
        return block, TEXT
    kind, inner = _of(block, "type"), _of(block, "text")
    if kind == "text" and isinstance(inner, str):
        return inner, TEXT
    if kind == "thinking" and (thought := _thought(block.get("thinking"))) is not None:
        return thought, REASONING
    return dumps({"content": [block]}), OTHER


def _thought(inner: Any) -> str | None:
    """The text of a thinking block, in one or in blocks of text; None where it holds anything else."""
    texts = [_of(part, "text") for part in inner] if isinstance(inner, list) else [inner]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _of(found: Any, key: str) -> Any:
    return found.get(key) if isinstance(found, dict) else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


_PARTS: dict[str, Callable[[OpenAIChat, str, str, dict[str, Any], list[Delta]], None]] = {
    "content": OpenAIChat._content,
    "reasoning_content": OpenAIChat._text,
    "reasoning": OpenAIChat._text,
    "refusal": OpenAIChat._text,
    "tool_calls": OpenAIChat._tool_calls,
    "annotations": OpenAIChat._annotations,
    "reasoning_details": OpenAIChat._reasoning_details,
}
