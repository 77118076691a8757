"""Reads the messages of a request to Ollama.

A reply that a client sends back is read as the recorded reply was, so that it means the same. Clients send calls back
without their ids.
https://docs.ollama.com/api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    Content,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from recorder.wire.deltas import Delta, as_text
from recorder.wire.ollama.stream import MessageReader
from recorder.wire.reply_without_call_ids import ReplyWithoutCallIds

#: The keys of both requests. Other services have the same paths, and some of them have messages, too.
_SHARED_KEYS = frozenset(
    ("model", "stream", "format", "options", "keep_alive", "think", "logprobs", "top_logprobs", "truncate", "shift",
     "_debug_render_only")
)  # fmt: skip
_CHAT_KEYS = _SHARED_KEYS | {"messages", "tools"}
_GENERATE_KEYS = _SHARED_KEYS | {
    "prompt", "suffix", "system", "template", "context", "raw", "images", "width", "height", "steps"
}  # fmt: skip
_ROLES = frozenset(("system", "user", "assistant", "tool"))
#: The keys of a message that are read; the other ones go with the message.
_MESSAGE_KEYS = frozenset(("role", "content", "images", "tool_name", "tool_call_id", "name"))


def is_chat_request(body: Mapping[str, Any]) -> bool:
    """Whether a body is a request for a chat: it has messages of Ollama's roles, each with a text, and no other keys.

    Without messages Ollama only loads the model.
    """
    messages = body.get("messages")
    is_known = _CHAT_KEYS.issuperset(body) and isinstance(messages, list) and bool(messages)
    return is_known and all(map(_is_message, messages or ()))


def is_generate_request(body: Mapping[str, Any]) -> bool:
    """Whether a body is a request for a text: it has a prompt or images, and no other keys than Ollama's.

    Without both Ollama only loads the model.
    """
    prompt = body.get("prompt")
    is_known = _GENERATE_KEYS.issuperset(body) and isinstance(prompt, str)
    return is_known and bool(prompt or body.get("images"))


def _is_message(message: Any) -> bool:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role not in _ROLES:
        return False
    return isinstance(message.get("content"), (str, type(None)))


def chat_messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    """The messages of a request to `/api/chat`. Never raises."""
    messages = body.get("messages")
    return [_message(each) for each in (messages if isinstance(messages, list) else ())]


def generate_messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    """The instructions and the prompt of a request to `/api/generate`. Never raises."""
    system = body.get("system")
    instructions: list[BaseMessage] = [SystemMessage(as_text(system))] if system else []
    return [*instructions, HumanMessage(_content(body.get("prompt"), body.get("images")))]


def _message(message: Any) -> BaseMessage:
    if not isinstance(message, Mapping):
        return HumanMessage(as_text(message))
    role = message.get("role")
    if role == "assistant":
        return _reply(message)
    content = _content(message.get("content"), message.get("images"))
    more = {key: message[key] for key in message if key not in _MESSAGE_KEYS and message[key] is not None}
    if role == "tool":
        call_id = as_text(message.get("tool_call_id") or "")
        name = message.get("tool_name") or message.get("name")
        return ToolMessage(content, call_id, name=as_text(name) if name else None, additional_kwargs=more)
    if role == "user" or not isinstance(role, str):
        return HumanMessage(content, additional_kwargs=more)
    if role == "system":
        return SystemMessage(content, additional_kwargs=more)
    return ChatMessage(content, role, additional_kwargs=more)


def _reply(message: Mapping[str, Any]) -> AIMessage:
    """The message of the model, made as the recorded reply was."""
    deltas: list[Delta] = []
    MessageReader().read(message, deltas)
    return ReplyWithoutCallIds.message_of(deltas)


def _content(text: Any, images: Any) -> Content:
    """The text, or blocks of the text and the images."""
    plain = as_text(text) if text is not None else ""
    if not images:
        return plain
    files = images if isinstance(images, list) else [images]
    blocks: list[Any] = [{"type": "image", "base64": as_text(each)} for each in files]
    return [{"type": "text", "text": plain}, *blocks] if plain else blocks
