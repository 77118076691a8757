"""JSON in requests and responses of the loopback provider, for all wire formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson


def compact(value: Any) -> bytes:
    """Compact JSON. A lone surrogate, which UTF-8 cannot encode, becomes a `\\u` escape, as in servers' JSON."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def indented(value: Any) -> bytes:
    """Indented JSON, as OpenAI's API sends responses that are not streamed."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return json.dumps(value, indent=2).encode() + b"\n"


def text_of(message: Any) -> str:
    """The text of a message in a request; its content is a string or a list of blocks. "" for any other value."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(str(block.get("text", "")) for block in blocks if isinstance(block, Mapping))
