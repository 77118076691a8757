"""Message ids, which are the same for messages with the same meaning.

Clients send the full history with each call, and change its form: other spaces in arguments, no trailing spaces, None
in place of empty content, no reasoning. Messages that differ only in such details get the same id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

#: Types of text blocks in Chat Completions, Anthropic and Responses.
_TEXT = frozenset({"text", "input_text", "output_text"})
#: Types of blocks that clients omit or change: reasoning, and calls of the provider's own tools.
_UNSENT = frozenset(
    {"reasoning", "reasoning_content", "thinking", "redacted_thinking", "signature", "citations"}
    | {"server_tool_use", "mcp_tool_use", "compaction", "input_json_delta"}
)
#: Types of call blocks -> the keys of id, name and arguments.
_CALLS = {
    "tool_use": ("id", "name", "input"),
    "tool_call": ("id", "name", "args"),
    "invalid_tool_call": ("id", "name", "args"),
    "function_call": ("call_id", "name", "arguments"),
}
#: Keys of a block that tell how it was sent. They are not part of its meaning.
_INCIDENTAL = frozenset({"cache_control", "index"})
#: Hex digit -> the digit in a UUID that has the same last two bits, and the bits of the variant before them.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_ROLES = {
    "human": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "developer": "system",
}


class Key(NamedTuple):
    """The meaning of a message. Messages with equal keys, at the same place, have the same id."""

    #: user, assistant, system, tool, or a role that the user made up.
    role: str
    #: All text parts joined, without trailing whitespace.
    text: str
    #: (id, name, arguments as sorted compact JSON) of each call, in order.
    calls: tuple[tuple[str, str, str], ...]
    #: The id of the call that a tool message answers, or "".
    tool_call_id: str
    #: SHA-256 (hex) of each image, file, tool result or other block, in order.
    attachments: tuple[str, ...]


def content_key(message: Any) -> Key:
    """The key of a message: any object with `role` or `type`, and `content`, in any provider's format."""
    if type(message.content) is str and message.content and not has_calls(message):
        tool_call_id = getattr(message, "tool_call_id", None) or ""
        role = getattr(message, "role", None)
        if type(role) is not str or not role or role in _ROLES:
            role = _role(message)
        return Key(role, message.content.rstrip(), (), tool_call_id, ())
    blocks = _blocks(message.content)
    text = "".join(_text(block) for block in blocks) or _refusal(message, blocks)
    return Key(
        role=_role(message),
        text=text.rstrip(),
        calls=_calls(message, blocks),
        tool_call_id=getattr(message, "tool_call_id", None) or "",
        attachments=tuple(_fingerprint(block) for block in blocks if _is_attachment(block)),
    )


def has_calls(message: Any) -> bool:
    """Whether a message of recorder or of LangChain has calls of tools, valid or not."""
    found = getattr(message, "has_calls", None)
    if found is None:
        found = getattr(message, "tool_calls", None) or getattr(message, "invalid_tool_calls", None)
    return bool(found)


class PathIds:
    """Finds the ids of the messages of paths. A message object that stands in several paths is hashed once.

    The caller holds all of these objects meanwhile, so that Python gives no other object the same `id`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None, int], str] = {}

    def add(self, conversation_id: str, parent_id: str | None, message: Any, message_id: str) -> None:
        """Add the id of a message below its parent, which was found already. Clients send their replies again."""
        self._known[conversation_id, parent_id, id(message)] = message_id

    def compute(
        self, conversation_id: str, messages: Iterable[Any], parent_id: str | None = None
    ) -> list[str]:
        """As `path_ids`."""
        ids = []
        for message in messages:
            place = conversation_id, parent_id, id(message)
            parent_id = self._known.get(place)
            if parent_id is None:
                parent_id = self._known[place] = id_below(*place[:2], message)
            ids.append(parent_id)
        return ids


def path_ids(conversation_id: str, messages: Iterable[Any], parent_id: str | None = None) -> list[str]:
    """The ids of the messages of a path. Each id depends on the one before it; the first on `parent_id`."""
    return PathIds().compute(conversation_id, messages, parent_id)


def encoded_key(message: Any) -> bytes:
    """The key of a message as JSON. Both hashes of a message are made from it."""
    return encoded(content_key(message))


def encoded(key: Key) -> bytes:
    """A key as JSON."""
    return _canonical(list(key))


def id_below(conversation_id: str, parent_id: str | None, message: Any) -> str:
    """The id of a message below its parent."""
    return id_of_key(conversation_id, parent_id, encoded_key(message))


def id_of_key(conversation_id: str, parent_id: str | None, key: bytes) -> str:
    """The id of a message below its parent, from its encoded key: a hash of one list of all three."""
    place = _canonical([conversation_id, parent_id])
    return _uuid8(hashlib.sha256(place[:-1] + b"," + key[1:]).hexdigest())


def content_hash(message: Any) -> int:
    """A hash of what a message means, wherever it stands: 64 bits, signed, from the SHA-256 of its key."""
    return hash_of_key(encoded_key(message))


def hash_of_key(key: bytes) -> int:
    """The content hash of a message, from its encoded key."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], signed=True)


def _uuid8(digits: str) -> str:
    """A UUID of the first 32 hex digits (RFC 9562, section 5.8). `uuid.UUID` takes six times as long."""
    variant = _VARIANTS[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def _canonical(value: Any) -> bytes:
    """Compact JSON with sorted keys. Lone surrogates, which strict UTF-8 refuses, are encoded as they are."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a lone surrogate, a key that is not a str, an integer over 64 bits
        return _canonical_slowly(value).encode("utf-8", "surrogatepass")


def _canonical_slowly(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        # Keys of several types, or a value that contains itself: not JSON, but repr is the same each time.
        return repr(value)


def _role(message: Any) -> str:
    role = str(getattr(message, "role", None) or getattr(message, "type", ""))
    return _ROLES.get(role, role)


def _blocks(content: Any) -> list[Any]:
    if not content:
        return []
    return content if isinstance(content, list) else [content]


def _kind(block: Any) -> str:
    return str(block.get("type") or "") if isinstance(block, dict) else ""


def _text(block: Any) -> str:
    if not isinstance(block, dict):
        return str(block)
    return str(block.get("text") or "") if _is_text(block) else ""


def _is_text(block: dict[str, Any]) -> bool:
    return _kind(block) in _TEXT or (not _kind(block) and "text" in block)


def _refusal(message: Any, blocks: list[Any]) -> str:
    """The refusal of the model, which counts as its text if there is no other."""
    refusal = "".join(str(block.get("refusal") or "") for block in blocks if _kind(block) == "refusal")
    return refusal or str((getattr(message, "additional_kwargs", None) or {}).get("refusal") or "")


def _is_attachment(block: Any) -> bool:
    if not isinstance(block, dict) or _is_text(block):
        return False
    kind = _kind(block)
    # `tool_result` is from the user; other types that end so are results of the provider's own tools.
    if kind.endswith("_tool_result"):
        return False
    return kind not in _UNSENT and kind not in _CALLS and kind != "refusal"


def _calls(message: Any, blocks: list[Any]) -> tuple[tuple[str, str, str], ...]:
    """Each call once: LangChain has Anthropic's calls in `tool_calls` and in the content."""
    listed = [
        *(getattr(message, "tool_calls", None) or ()),
        *(getattr(message, "invalid_tool_calls", None) or ()),
    ]
    calls = [_call(call, ("id", "name", "args")) for call in listed]
    ids = {call[0] for call in calls if call[0]}
    for block in blocks:
        if _kind(block) not in _CALLS:
            continue
        call = _call(block, _CALLS[_kind(block)])
        if call[0] not in ids and call not in calls:
            calls.append(call)
    return tuple(calls)


def _call(call: dict[str, Any], names: tuple[str, str, str]) -> tuple[str, str, str]:
    id, name, arguments = (call.get(key) for key in names)
    return str(id or ""), str(name or ""), _arguments(arguments)


def _arguments(value: Any) -> str:
    """Arguments as sorted compact JSON, or as their text if that is not JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return str(value).strip()
    return _canonical(value or {}).decode("utf-8", "surrogatepass")


def _fingerprint(block: Any) -> str:
    return hashlib.sha256(_canonical(_essence(block))).hexdigest()


def _essence(value: Any, top: bool = True) -> Any:
    """The block without its incidental keys. `cache_control` may be at any depth."""
    if isinstance(value, list):
        return [_essence(item, False) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = _INCIDENTAL if top else {"cache_control"}
    return {key: _essence(item, False) for key, item in value.items() if key not in dropped}
