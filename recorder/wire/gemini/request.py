"""Reads the messages of a request to Gemini.

Consecutive contents of the model are one message: a client that reads a stream sends back a content for each event, and
the recorded reply is one message. Results of functions are messages of tools, whatever else their content has.
https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
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
from recorder.wire.gemini.content import PartReader, camel_keys, parts_of
from recorder.wire.reply_without_call_ids import ReplyWithoutCallIds

_MODEL = "model"
#: Roles of the contents that hold what is not the model's. Older clients have a role for the results of functions.
_OF_THE_USER = frozenset(("user", "function", "tool"))
#: The keys of a result that are read; the other ones go with the message.
_RESULT_KEYS = frozenset(("id", "name", "response", "parts"))
#: The keys under which a function's result is, if it is one text: `error` says that the function failed.
_OUTPUTS = ("result", "output", "error")
_MEDIA = ("image", "audio", "video")


def gemini_messages(body: Mapping[str, Any]) -> list[BaseMessage]:
    """The messages of a request body, the instructions first. Never raises."""
    fields = camel_keys(body)
    messages: list[BaseMessage] = []
    if instructions := _content(
        [_with_camel_keys(part) for part in parts_of(fields.get("systemInstruction"))]
    ):
        messages.append(SystemMessage(instructions))
    for role, contents in groupby(_contents_of(fields), _role_of):
        if role == _MODEL:
            messages.append(_reply(contents))
        else:
            for content in contents:
                messages += _messages_of(role, content)
    return messages


def is_gemini_request(body: Mapping[str, Any]) -> bool:
    """Whether a body has contents with parts, as no other service has them."""
    contents = _contents_of(body)
    return any(isinstance(each, Mapping) and isinstance(each.get("parts"), (list, dict)) for each in contents)


def _contents_of(fields: Mapping[str, Any]) -> list[Any]:
    contents = fields.get("contents")
    return contents if isinstance(contents, list) else [contents] if contents is not None else []


def _role_of(content: Any) -> str:
    role = content.get("role") if isinstance(content, Mapping) else None
    return role if isinstance(role, str) and role else "user"


def _reply(contents: Iterable[Any]) -> AIMessage:
    """The message of the model's contents, made as the recorded reply was."""
    reader = PartReader()
    deltas: list[Delta] = []
    for content in contents:
        for part in parts_of(content):
            reader.read(part, "0", deltas)
    return ReplyWithoutCallIds.message_of(deltas)


def _messages_of(role: str, content: Any) -> list[BaseMessage]:
    """The results of functions in a content, and then a message with its other parts."""
    parts = [_with_camel_keys(part) for part in parts_of(content)]
    results: list[BaseMessage] = [_result(part["functionResponse"]) for part in parts if _is_result(part)]
    rest = [part for part in parts if not _is_result(part)]
    if results and not rest:
        return results
    return [*results, _message(role, _content(rest))]


def _message(role: str, content: Content) -> BaseMessage:
    if role in _OF_THE_USER:
        return HumanMessage(content)
    return SystemMessage(content) if role == "system" else ChatMessage(content, role)


def _is_result(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("functionResponse"), Mapping)


def _result(result: Mapping[str, Any]) -> ToolMessage:
    """The result of a function: the text, if it is one; else its JSON. Its files are blocks after it."""
    response = result.get("response")
    files = [_block(_with_camel_keys(part)) for part in parts_of({"parts": result.get("parts")})]
    text = _output_of(response)
    content: Content = [{"type": "text", "text": text}, *files] if files else text
    is_error = isinstance(response, Mapping) and response.keys() == {"error"}
    return ToolMessage(
        content,
        as_text(result.get("id") or ""),
        name=as_text(result.get("name") or "") or None,
        status="error" if is_error else "success",
        additional_kwargs={key: result[key] for key in result if key not in _RESULT_KEYS},
    )


def _output_of(response: Any) -> str:
    if isinstance(response, Mapping) and len(response) == 1:
        ((name, value),) = response.items()
        if name in _OUTPUTS and isinstance(value, str):
            return value
    return "" if response is None else as_text(response)


def _content(parts: list[Any]) -> Content:
    """One text, or a block for each part."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Mapping) and parts[0].keys() == {"text"}:
        return as_text(parts[0]["text"])
    return [_block(part) for part in parts]


def _block(part: Any) -> dict[str, Any]:
    """A content block: of the type text, of the type of the file (image, audio, video, file), or of the part's key."""
    if not isinstance(part, Mapping) or not part:
        return {"type": "unknown", "value": part}
    if isinstance(part.get("text"), str):
        return {"type": "text", **part}
    for key, place in (("inlineData", "data"), ("fileData", "fileUri")):
        if isinstance(part.get(key), Mapping):
            return _file(part, key, place)
    return {"type": next(iter(part)), **part}


def _file(part: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    file = camel_keys(part[key])
    media = file.pop("mimeType", None)
    kind = str(media or "").partition("/")[0]
    name = "base64" if place == "data" else "url"
    rest = {**file, **{other: part[other] for other in part if other != key}}
    rest.pop(place, None)
    return {"type": kind if kind in _MEDIA else "file", "mime_type": media, name: file.get(place), **rest}


def _with_camel_keys(part: Any) -> Any:
    """The part with the names that the API answers with; anything else unchanged."""
    return camel_keys(part) if isinstance(part, Mapping) else part
