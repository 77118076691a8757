"""Converts messages to an Anthropic request: a system prompt, and turns of user and assistant with content blocks.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from recorder.errors import ConfigError
from recorder.messages import AIMessage, BaseMessage, Content, ToolMessage, from_any, parse_args
from recorder.redaction.credentials import shown

#: Models that accept a system message between other messages; for older models it moves to the front. Source:
#: LangChain's model profiles of November 2026.
_IN_PLACE = ("claude-opus-4-8", "claude-opus-5", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5",
             "claude-mythos-5")  # fmt: skip
#: Types of blocks with other providers' reasoning and calls; they are not sent.
_ELSEWHERE = frozenset(("reasoning", "reasoning_content", "function_call", "tool_call", "invalid_tool_call"))
#: Keys that only streamed blocks have.
_STREAMED = frozenset(("index", "partial_json"))
#: Type of a block -> the keys that the API accepts; clients and frameworks add other keys.
_ACCEPTED = {
    "text": frozenset(("type", "text", "cache_control", "citations")),
    "thinking": frozenset(("type", "thinking", "signature", "cache_control")),
    "redacted_thinking": frozenset(("type", "data", "cache_control")),
}
#: Keys that are sent beside the data of an image or a file.
_BESIDE = ("cache_control", "citations", "title", "context")
#: The API accepts only such ids of calls.
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_DATA_URL = re.compile(r"data:(?P<mime>[^;,]+);base64,(?P<data>.+)", re.DOTALL)

Turn = dict[str, Any]


def request_messages(messages: Iterable[Any], model: str = "") -> tuple[Content | None, list[Turn]]:
    """The `system` and `messages` of a request. Raises `ConfigError` for system messages that the model rejects."""
    merged = _merged([from_any(message) for message in messages])
    last = max((at for at, message in enumerate(merged) if message.role != "system"), default=-1)
    builder = _TurnBuilder(model)
    for at, message in enumerate(merged):
        if message.role == "system":
            builder.system_message(message, first=at == 0)
        elif (turn := _turn(message, is_last=at == last)) is not None:
            builder.turn(turn)
    return builder.system or None, [*builder.turns, *builder.pending]


class _TurnBuilder:
    """Collects the turns, and decides where system messages go."""

    def __init__(self, model: str) -> None:
        self.system: Any = None
        self.turns: list[Turn] = []
        #: System messages that stay in their place if an assistant turn or nothing follows; otherwise they move.
        self.pending: list[Turn] = []
        self._in_place = model.startswith(_IN_PLACE)
        self._model = model
        #: Id of a call -> the toolset, which the call's result must name too.
        self._toolsets: dict[str, str] = {}

    def system_message(self, message: BaseMessage, *, first: bool) -> None:
        """Adds a system message: it becomes `system`, stays in its place, or moves to the front."""
        content = _system(message.content)
        if first:
            self.system = content
        elif self._in_place and (self.pending or _may_be_followed(self.turns)):
            self.pending += [{"role": "system", "content": content}] if content else []
        else:
            self._to_the_front(content)

    def turn(self, turn: Turn) -> None:
        """Adds the next turn."""
        if turn["role"] == "assistant":
            self.turns += self.pending
        else:
            for pending in self.pending:
                self._to_the_front(pending["content"])
        self.pending = []
        self._name_toolsets(turn["content"])
        self.turns.append(turn)

    def _to_the_front(self, content: Content) -> None:
        if self.system is not None:
            raise ConfigError(
                f"there are several system messages, and {self._model or 'the model'} accepts only one, at the front; "
                "put their texts into the first"
            )
        warnings.warn(
            "A system message was moved to the front of the conversation, where it applies to all messages, because "
            "this model accepts none between other messages",
            UserWarning,
            stacklevel=2,
        )
        self.system = content

    def _name_toolsets(self, content: Content) -> None:
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "tool_use" and block.get("toolset_name"):
                self._toolsets[block["id"]] = block["toolset_name"]
            elif block.get("type") == "tool_result" and (
                name := self._toolsets.get(block.get("tool_use_id"))
            ):
                block.setdefault("toolset_name", name)


def _may_be_followed(turns: Sequence[Turn]) -> bool:
    """Whether a system message may follow these turns: after the user's, or after the result of a server tool."""
    if not turns or turns[-1]["role"] != "assistant":
        return bool(turns) and turns[-1]["role"] == "user"
    content = turns[-1]["content"]
    return isinstance(content, list) and str(content[-1].get("type")).endswith("_tool_result")


def _merged(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """Merges consecutive user and tool messages into one user message, and consecutive system messages into one."""
    merged: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            message = _result(message)
        if merged and message.role in ("user", "system") and merged[-1].role == message.role:
            content = [*_as_list(merged[-1].content), *_as_list(message.content)]
            merged[-1] = from_any((message.role, content))
        else:
            merged.append(message)
    return merged


def _as_list(content: Content) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _result(message: ToolMessage) -> BaseMessage:
    """A tool's result as a user message."""
    content = message.content
    if isinstance(content, list) and content and all(_kind(block) == "tool_result" for block in content):
        return from_any(("user", content))
    result = {
        "type": "tool_result",
        "content": content,
        "tool_use_id": call_id(message.tool_call_id),
        "is_error": message.status == "error",
    }
    if isinstance(content, list):
        # The API accepts `cache_control` on the result, not on the blocks inside of it.
        marks = [block["cache_control"] for block in content if _kind(block) and "cache_control" in block]
        result["content"] = [
            _without(block, {"cache_control"}) if isinstance(block, dict) else block for block in content
        ]
        result |= {"cache_control": marks[-1]} if marks else {}
    return from_any(("user", [result]))


def call_id(id: str | None) -> str | None:
    """The id if the API accepts it; otherwise an id that is always the same for this one."""
    if not id or _ID.fullmatch(id):
        return id
    return f"toolu_{hashlib.sha256(id.encode()).hexdigest()[:24]}"


def _system(content: Content) -> Content:
    if isinstance(content, str):
        return content
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    return [_narrowed(block) for block in blocks]


def _turn(message: BaseMessage, *, is_last: bool) -> Turn | None:
    """One turn; None for an empty reply, which the API refuses unless it is the last message."""
    content = _content(message)
    if isinstance(message, AIMessage):
        if calls := _missing_calls(message, content):
            content = [*_as_list(content), *calls] if content else calls
        if is_last:
            content = _right_stripped(content)
        elif not content:
            return None
    return {"role": message.role, "content": content}


def _content(message: BaseMessage) -> Content:
    if isinstance(message.content, str):
        return message.content
    found = (_formatted(block, message) for block in message.content)
    return [block for block in found if block is not None]


def _right_stripped(content: Content) -> Content:
    if isinstance(content, str):
        return content.rstrip()
    if content and content[-1]["type"] == "text":
        return [*content[:-1], {**content[-1], "text": content[-1]["text"].rstrip()}]
    return content


def _missing_calls(message: AIMessage, content: Content) -> list[dict[str, Any]]:
    """The calls that have no block in the content, as in messages of other providers."""
    present = (
        {block.get("id") for block in content if block.get("type") == "tool_use"}
        if type(content) is list
        else set()
    )
    calls = [_tool_use(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    for invalid in message.invalid_tool_calls:
        if invalid["id"] and invalid["name"]:
            calls.append(_tool_use(invalid["id"], invalid["name"], parse_args(invalid["args"]) or {}))
    return [call for call in calls if call["id"] not in present]


def _tool_use(id: str | None, name: str, input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "name": name, "input": input, "id": call_id(id)}


# -- blocks --------------------------------------------------------------------------------------------------------


def _kind(block: Any) -> str:
    return str(block.get("type") or "") if isinstance(block, Mapping) else ""


def _without(block: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in keys}


def _formatted(block: Any, message: BaseMessage) -> dict[str, Any] | None:
    """A content block in the API's format; None if it is not sent."""
    if isinstance(block, str):
        block = {"type": "text", "text": block}
    kind = _kind(block)
    if not kind:
        raise ConfigError(f"a content block needs a 'type', and {shown(block)} has none; add one")
    if kind in _ELSEWHERE or (kind == "text" and not str(block.get("text") or "").strip()):
        return None  # the API refuses blank texts
    if kind == "tool_use":
        return _call_block(block, message)
    return _FORMATS.get(kind, _other)(block)


def _call_block(block: dict[str, Any], message: BaseMessage) -> dict[str, Any]:
    """The block of a call, with the changes that an application made in `tool_calls`.

    A call with a `caller` was made by the provider's own code; its changes are ignored.
    """
    input = block.get("input") or parse_args(block.get("partial_json")) or {}
    for call in getattr(message, "tool_calls", ()):
        if call["id"] == block.get("id") and not block.get("caller"):
            return _with(
                block, _tool_use(call["id"], call["name"], call["args"]), ("toolset_name", "cache_control")
            )
    sent = _tool_use(block.get("id"), block.get("name", ""), input)
    return _with(block, sent, ("caller", "toolset_name", "cache_control"))


def _with(block: dict[str, Any], sent: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {**sent, **{key: block[key] for key in keys if block.get(key)}}


def _narrowed(block: dict[str, Any]) -> dict[str, Any]:
    """The block with only the keys that the API accepts, if its type is text or thinking."""
    accepted = _ACCEPTED.get(_kind(block))
    if accepted is None:
        return block
    sent = {key: value for key, value in block.items() if key in accepted}
    if sent.get("citations"):
        sent["citations"] = [_cited(citation) for citation in sent["citations"]]
    elif "citations" in sent:
        del sent["citations"]
    return sent


def _cited(citation: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in citation.items() if key != "file_id" or value is not None}


def _thinking(block: dict[str, Any]) -> dict[str, Any]:
    return (
        {"type": "thinking", "thinking": "", **_narrowed(block)} if "signature" in block else _narrowed(block)
    )


def _other(block: dict[str, Any]) -> dict[str, Any]:
    """A block of a server tool, or one that is in the API's format already."""
    sent = _without(block, _STREAMED)
    if not block.get("input") and (input := parse_args(block.get("partial_json") or None)):
        sent["input"] = input
    if "tool_use_id" in sent:
        sent["tool_use_id"] = call_id(sent["tool_use_id"])
    return {key: value for key, value in sent.items() if value is not None or key == "content"}


def _tool_result(block: dict[str, Any]) -> dict[str, Any]:
    """The result of a user's tool; its content is formatted like that of a message."""
    sent = _other(block)
    if isinstance(sent.get("content"), list):
        carrier = from_any(("user", sent["content"]))
        sent["content"] = _content(carrier)
    return sent


def _image_url(block: dict[str, Any]) -> dict[str, Any]:
    """An image in OpenAI's format."""
    given = block.get("image_url")
    url = given.get("url") if isinstance(given, Mapping) else given
    return _with(block, {"type": "image", "source": _source(str(url))}, ("cache_control",))


def _source(url: str) -> dict[str, Any]:
    if found := _DATA_URL.fullmatch(url):
        return {"type": "base64", "media_type": found["mime"], "data": found["data"]}
    if url.startswith(("http://", "https://")):
        return {"type": "url", "url": url}
    raise ConfigError(f"{shown(url, 60)} is no image; pass an https: URL, or 'data:image/png;base64,...'")


def _image(block: dict[str, Any]) -> dict[str, Any]:
    """An image in LangChain's formats (v0, v1); one in the API's format is sent unchanged."""
    return _data(block, "image", None)


def _file(block: dict[str, Any]) -> dict[str, Any]:
    """A file in LangChain's formats (v0, v1) or OpenAI's."""
    inner = block.get("file")
    if isinstance(inner, Mapping):
        data = inner.get("file_data")
        block = {
            **_without(block, ("file",)),
            **({"url": data} if data else {"file_id": inner.get("file_id")}),
        }
        block |= {"title": inner["filename"]} if inner.get("filename") else {}
    return _data(block, "document", "application/pdf")


def _plain_text(block: dict[str, Any]) -> dict[str, Any]:
    return _data({**block, "source_type": "text"}, "document", "application/pdf")


def _data(block: dict[str, Any], kind: str, mime: str | None) -> dict[str, Any]:
    if isinstance(block.get("source"), Mapping):
        return _other(block)
    source = _data_source(block, mime)
    if source is None:
        raise ConfigError(
            f"a block of type {block['type']!r} needs 'url', 'base64' or 'file_id'; add one of them"
        )
    sent: dict[str, Any] = {"type": kind, "source": source}
    for more in (block.get("metadata") or {}, block.get("extras") or {}, block):
        sent |= {key: more[key] for key in _BESIDE if more.get(key) is not None}
    return sent


def _data_source(block: dict[str, Any], mime: str | None) -> dict[str, Any] | None:
    """The source of the data: in the block, at a URL, or a file stored at the provider; None if there is none."""
    given, source_type = block.get("mime_type"), block.get("source_type")
    if "url" in block:
        return (
            _source(block["url"])
            if block["url"].startswith("data:")
            else {"type": "url", "url": block["url"]}
        )
    if data := block.get("base64") or (block.get("data") if source_type == "base64" else None):
        return {"type": "base64", "media_type": given or mime, "data": data}
    if source_type == "text":
        return {"type": "text", "media_type": given or "text/plain", "data": block["text"]}
    if file_id := block.get("file_id") or (block.get("id") if source_type == "id" else None):
        return {"type": "file", "file_id": file_id}
    return None


_FORMATS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "text": _narrowed,
    "thinking": _thinking,
    "redacted_thinking": _narrowed,
    "tool_result": _tool_result,
    "image_url": _image_url,
    "image": _image,
    "file": _file,
    "text-plain": _plain_text,
}
