"""OpenAI chat completions, and the dialects of the providers that speak it, to deltas.

Dialects: reasoning as `reasoning_content` (DeepSeek, Z.ai) or `reasoning` (OpenRouter, Groq) or both (vLLM),
usage in `x_groq` or in a choice (Moonshot), content as a list of blocks (Mistral), errors as an event named
`error` (Groq) or beside the choices (OpenRouter), the message so far beside each delta (Perplexity), tool
calls without an index (Mistral), with the same one for all (Gemini) or with a new id in each chunk (vLLM).
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recorder.jsons import dumps
from recorder.usage import PLACES
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.openai_events import FILTERED, MAX_SAID, PLAIN_KEYS, OpenAIEvents, of

WIRE = "openai.chat"


class OpenAIChat(OpenAIEvents):
    """Translates the frames of one response; `reply` is the answer as far as it has come.

    `decode` never raises: what it does not know becomes a delta of kind `other`.
    """

    wire = WIRE

    def __init__(self) -> None:
        super().__init__()
        self._calls = _Calls()

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

    def _content(self, choice: dict[str, Any], idx: str, found: list[Delta]) -> None:
        # Beside a delta the message is all that came so far.
        said = choice.get("delta")
        if said is None:
            said = choice.get("message") or {}
        for key, value in said.items():
            if key == "content" and type(value) is str:
                if value:
                    found.append(Delta(value, TEXT, idx))
            elif value is not None and key != "role":
                _PARTS.get(key, OpenAIChat._unknown)(self, idx, key, said, found)

    def _blocks(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
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

    def _usage(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        self._spent(said[key])

    def _error(self, idx: str, key: str, said: dict[str, Any], found: list[Delta]) -> None:
        self._stated(said[key] or None)

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
        if len(self._open) < MAX_SAID or (idx, key) in self._open:
            self._open[idx, key] = number, call_id
            self._highest[idx] = max(number, self._highest.get(idx, -1))


def _block(block: Any) -> tuple[str, str]:
    """Text and kind of a block of content."""
    if isinstance(block, str):
        return block, TEXT
    kind, inner = of(block, "type"), of(block, "text")
    if kind == "text" and isinstance(inner, str):
        return inner, TEXT
    if kind == "thinking" and (thought := _thought(block.get("thinking"))) is not None:
        return thought, REASONING
    return dumps({"content": [block]}), OTHER


def _thought(inner: Any) -> str | None:
    """The text of a thinking block, in one or in blocks of text; None where it holds anything else."""
    texts = [of(part, "text") for part in inner] if isinstance(inner, list) else [inner]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


_PARTS: dict[str, Callable[[OpenAIChat, str, str, dict[str, Any], list[Delta]], None]] = {
    "content": OpenAIChat._blocks,
    "reasoning_content": OpenAIChat._text,
    "reasoning": OpenAIChat._text,
    "refusal": OpenAIChat._text,
    "tool_calls": OpenAIChat._tool_calls,
    "error": OpenAIChat._error,
    **dict.fromkeys(PLACES, OpenAIChat._usage),
    "annotations": OpenAIChat._annotations,
    "reasoning_details": OpenAIChat._reasoning_details,
}
