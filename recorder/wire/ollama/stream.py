"""Decodes Ollama's answers to deltas: lines of JSON, or one object if the request asks for no stream.

A line has a piece of a message (`/api/chat`), or of a text (`/api/generate`). The last line has `done`, the reason and
the counts. An answer that is not streamed has the form of the last line, with the complete message or text.
https://docs.ollama.com/api
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from recorder.core.json import dumps, loads
from recorder.wire import usage
from recorder.wire.decoder import Decoder
from recorder.wire.deltas import OTHER, REASONING, TEXT, TOOL_ARGS, TOOL_CALL, Delta, as_text
from recorder.wire.errors import error_of
from recorder.wire.ollama.framing import FRAMING
from recorder.wire.reply import Reply
from recorder.wire.reply_without_call_ids import ReplyWithoutCallIds
from recorder.wire.sse import BOM

CHAT_WIRE, GENERATE_WIRE = "ollama.chat", "ollama.generate"

_COUNTS = ("prompt_eval_count", "eval_count")
#: Keys that describe the response; durations are nanoseconds.
_METADATA = (
    "created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "remote_model",
    "remote_host",
)  # fmt: skip
#: Keys that are read elsewhere, or that are no part of the answer: the tokens of the conversation, and the steps that
#: the generation of an image has made.
_READ = frozenset(
    ("model", "message", "response", "thinking", "tool_calls", "done", "done_reason", "logprobs", "error", "context",
     "completed", "total", *_COUNTS, *_METADATA)
)  # fmt: skip
_MESSAGE_KEYS = frozenset(("role", "content", "thinking", "tool_calls", "tool_name"))
_FUNCTION_KEYS = frozenset(("name", "arguments", "index"))


class MessageReader:
    """Makes deltas of messages or their pieces. Calls are numbered in the order in which they come."""

    def __init__(self) -> None:
        self._calls = 0

    def read(self, message: Mapping[str, Any], deltas: list[Delta]) -> None:
        """Adds the deltas of a message: reasoning first, as the model made it."""
        _add_text(message, "thinking", REASONING, deltas)
        _add_text(message, "content", TEXT, deltas)
        self.read_calls(message.get("tool_calls"), deltas)
        if rest := {
            key: message[key] for key in message if key not in _MESSAGE_KEYS and message[key] is not None
        }:
            deltas.append(Delta(dumps(rest), OTHER))

    def read_calls(self, calls: Any, deltas: list[Delta]) -> None:
        """Adds calls, each of them complete."""
        for call in calls if isinstance(calls, list) else [calls] if calls is not None else ():
            function = call.get("function") if isinstance(call, Mapping) else None
            if isinstance(function, Mapping):
                self._read_call(call, function, deltas)
            else:
                deltas.append(Delta(dumps({"tool_calls": [call]}), OTHER))

    def _read_call(self, call: Mapping[str, Any], function: Mapping[str, Any], deltas: list[Delta]) -> None:
        idx = f"0.{self._calls}"
        self._calls += 1
        more = {key: call[key] for key in call if key not in ("id", "type", "function")}
        inner = {key: function[key] for key in function if key not in _FUNCTION_KEYS}
        fields = {"id": call.get("id"), "name": as_text(function.get("name") or ""), **more}
        deltas.append(Delta(dumps({**fields, "function": inner} if inner else fields), TOOL_CALL, idx))
        if arguments := function.get("arguments"):
            deltas.append(Delta(as_text(arguments), TOOL_ARGS, idx))


class OllamaEvents(Decoder):
    """Translates the lines of one response; `reply` holds the answer received so far.

    `decode` never raises: unknown content becomes a delta of kind `other`.
    """

    wire: str
    framing = FRAMING

    def __init__(self) -> None:
        self.reply: Reply = ReplyWithoutCallIds()
        self._messages = MessageReader()

    def decode(self, frame: bytes) -> Sequence[Delta]:
        """Returns the deltas of one line, none after the last one. A complete answer is one line, too."""
        try:
            event = orjson.loads(frame)
        except orjson.JSONDecodeError:
            event = None
        return self._decode(frame, event)

    def _decode_other(self, frame: bytes, deltas: list[Delta]) -> None:
        """Decodes a line that orjson does not read. Some proxies make server-sent events of the lines."""
        body = frame.strip(BOM + b" \t\r\n").removeprefix(b"data:").strip()
        if body and not body.startswith(b":") and body != b"[DONE]":
            self._decode_event(loads(body), deltas)

    def _decode_event(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        reply, message = self.reply, event.get("message")
        is_answer = "response" in event or isinstance(message, Mapping)
        if error := event.get("error") or (None if is_answer or "done" in event else error_of(event)):
            reply.error = error
        reply.model = reply.model or _text_or_none(event.get("model"))
        if isinstance(message, Mapping):
            self._messages.read(message, deltas)
        elif message is not None and not reply.error:
            deltas.append(Delta(dumps({"message": message}), OTHER))
        _add_text(event, "thinking", REASONING, deltas)
        _add_text(event, "response", TEXT, deltas)
        self._messages.read_calls(event.get("tool_calls"), deltas)
        reply.add_logprobs(0, {"content": event.get("logprobs")})
        if rest := {key: event[key] for key in event if key not in _READ and event[key] is not None}:
            deltas.append(Delta(dumps(rest), OTHER))
        if event.get("done") is True:
            self._end(event)

    def _end(self, event: dict[str, Any]) -> None:
        reply = self.reply
        reply.finish(0, event.get("done_reason"))
        reply.metadata |= {key: event[key] for key in _METADATA if event.get(key) is not None}
        if counts := {key: event[key] for key in _COUNTS if event.get(key) is not None}:
            reply.raw_usage = counts
            reply.usage = usage.from_openai(counts) if usage.is_counted(counts) else None
        reply.terminated = True


class OllamaChat(OllamaEvents):
    """Translates the answers of `/api/chat`."""

    wire = CHAT_WIRE


class OllamaGenerate(OllamaEvents):
    """Translates the answers of `/api/generate`."""

    wire = GENERATE_WIRE


def _add_text(fields: Mapping[str, Any], key: str, kind: str, deltas: list[Delta]) -> None:
    value = fields.get(key)
    if isinstance(value, str):
        if value:
            deltas.append(Delta(value, kind))
    elif value is not None:
        deltas.append(Delta(dumps({key: value}), OTHER))


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
