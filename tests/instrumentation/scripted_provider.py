"""A provider for programs of users: each answer follows from the question, and the provider notes what it answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import recorder.testing
from recorder.testing import Answer, LoopbackProvider, pieces_of
from tests.instrumentation import gemini_and_ollama as others

SONG, SUNNY, HERE = (
    "Row, row, row your boat, gently down the stream.",
    "It is sunny in Paris.",
    "Here I am.",
)
#: What the programs ask, and the answers. A question with tools is answered by a call of the first one.
ANSWERS = {"Sing.": SONG, "Hurry.": HERE, "Is it sunny in Paris?": SUNNY}
#: The answer is an error; it is an error at every second time; the answer does not end, so the program has to leave it.
REFUSED, BUSY, ENDLESS = "Nonsense.", "Hurry.", "Count."
#: The pieces of the endless answer. Only the first one is sent.
NUMBERS = ["1 ", "2 "]
#: The SDKs wait so long before they try again; without these headers half a second.
_AT_ONCE = {"retry-after-ms": "1", "retry-after": "0.001"}
#: What the provider counts as input.
PROMPT_TOKENS = 14
#: The end of a path -> the functions of `recorder.testing` that encode an answer, streamed or not.
_ENCODERS = {
    "/completions": ("openai_chat_frames", "openai_chat_body"),
    "/responses": ("openai_responses_frames", "openai_responses_body"),
    "/messages": ("anthropic_messages_frames", "anthropic_messages_body"),
}


class Exchange(NamedTuple):
    """One model call: which model was asked, and how it was answered."""

    model: str | None
    status: str
    text: str = ""
    #: The name of the tool that is called, and its arguments.
    call: tuple[str, Any] | None = None
    #: None where the answer has no usage.
    input_tokens: int | None = None
    attempt: int = 1


class ScriptedProvider(LoopbackProvider):
    """A provider on this machine that answers the questions of this module."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        #: What was answered, in this order.
        self.exchanges: list[Exchange] = []
        self._busy_times = count()

    def _reply(self, body: dict[str, Any], path: str) -> Answer:
        plain_path = path.partition("?")[0]
        body = others.as_chat(body, plain_path)
        question, error = _question_of(body), _error_of(plain_path)
        if question == REFUSED:
            return self._note(Exchange(body.get("model"), "error"), error(400))
        if question == BUSY and next(self._busy_times) % 2 == 0:
            return self._note(Exchange(body.get("model"), "error"), error(429, headers=_AT_ONCE))
        if question == ENDLESS:
            return self._endless(body, plain_path)
        return self._complete(body, plain_path, question)

    def _note(self, exchange: Exchange, answer: Answer) -> Answer:
        self.exchanges.append(exchange)
        return answer

    def _endless(self, body: dict[str, Any], path: str) -> Answer:
        frames = _encoded(body, path, NUMBERS, None)
        headers = others.content_type(path) if _is_other(path) else {}
        last = next(number for number, frame in enumerate(frames, 1) if f'"{NUMBERS[0]}"'.encode() in frame)
        # The first event of Anthropic and of Gemini has it.
        usage = PROMPT_TOKENS if path.endswith("/messages") or others.is_gemini(path) else None
        exchange = Exchange(body.get("model"), "cancelled", NUMBERS[0], None, usage)
        return self._note(exchange, Answer(frames=frames, hang_after=last, headers=headers))

    def _complete(self, body: dict[str, Any], path: str, question: str) -> Answer:
        tool = None if _has_result(body) else _tool_of(body)
        text = "" if tool else ANSWERS[question]
        usage = PROMPT_TOKENS if _has_usage(body, path) else None
        call = (tool, arguments_of(tool)) if tool else None
        exchange = Exchange(body.get("model"), "complete", text, call, usage, 2 if question == BUSY else 1)
        encoded = _encoded(body, path, pieces_of(text), tool)
        if not isinstance(encoded, list):
            return self._note(exchange, Answer(body=encoded))
        headers = others.content_type(path) if _is_other(path) else {}
        return self._note(exchange, Answer(frames=encoded, headers=headers))


def arguments_of(tool: str) -> dict[str, Any]:
    """Return the arguments of a call. A tool with another name is the shape of an answer that is no text."""
    return {"city": "Paris"} if tool == "get_weather" else {"name": "Ada", "age": 36}


def _is_other(path: str) -> bool:
    """Return whether a path is one of Gemini or Ollama."""
    return others.is_gemini(path) or others.is_ollama(path)


def _error_of(path: str) -> Callable[..., Answer]:
    """Return the function that makes a response with an error status in the format of the path."""
    if _is_other(path):
        return lambda status, headers=None: others.error(path, status)
    return Answer.anthropic_error if path.endswith("/messages") else Answer.error


def _question_of(body: Mapping[str, Any]) -> str:
    """The last text of the user; results of tools are no texts."""
    messages = [message for message in _messages_of(body) if message.get("role") == "user"]
    return [text for message in messages if (text := _text_of(message["content"]))][-1]


def _messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = next(body[key] for key in ("messages", "input", "prompt") if key in body)
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if "text" in part)


def _has_result(body: Mapping[str, Any]) -> bool:
    last = _messages_of(body)[-1]
    kinds = {last.get("role"), last.get("type")}
    kinds |= {part.get("type") for part in last.get("content") or () if isinstance(part, dict)}
    return bool({"tool", "function_call_output", "tool_result"} & kinds)


def _tool_of(body: Mapping[str, Any]) -> str | None:
    return next((tool.get("function", tool)["name"] for tool in body.get("tools") or ()), None)


def _has_usage(body: Mapping[str, Any], path: str) -> bool:
    is_asked_for = bool((body.get("stream_options") or {}).get("include_usage"))
    return is_asked_for or not body.get("stream") or not path.endswith("/completions")


def _encoded(body: Mapping[str, Any], path: str, pieces: Sequence[str], tool: str | None) -> Any:
    """The events of the answer as a list if the request says so, else its body."""
    if _is_other(path):
        call = (tool, arguments_of(tool)) if tool else None
        return others.encoded(path, body, pieces, call, PROMPT_TOKENS)
    frames, complete = next(names for end, names in _ENCODERS.items() if path.endswith(end))
    fields = {
        "model": body.get("model") or "an agent",
        "prompt_tokens": PROMPT_TOKENS,
        "tool_calls": _calls(tool),
    }
    if not body.get("stream"):
        return getattr(recorder.testing, complete)(pieces, **fields)
    if not _has_usage(body, path):
        fields["usage"] = False
    return getattr(recorder.testing, frames)(pieces, **fields)


def _calls(tool: str | None) -> list[dict[str, str]]:
    if tool is None:
        return []
    arguments = json.dumps(arguments_of(tool))  # OpenAI names them arguments, Anthropic input
    return [{"id": "call_1", "name": tool, "arguments": arguments, "input": arguments}]
