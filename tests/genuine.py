"""Reads responses that real providers streamed, from a folder beside the repository if it exists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "streams"
MISSING = f"no genuine provider streams: {FOLDER} is not there"


@dataclass(frozen=True, slots=True)
class Stream:
    """One recorded response."""

    #: Name of the file without its extension, used in test ids.
    name: str
    #: openai, groq, openrouter, ...
    provider: str
    #: Path of the request's URL.
    path: str
    #: The JSON body of the request, if it is known.
    request: dict[str, Any] | None
    #: HTTP status.
    status: int
    content_type: str
    #: The body as the provider sent it.
    body: bytes


def _read(file: Path) -> Stream:
    """Read one stream from its JSON file."""
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields["body"] = fields["body"].encode()
    return Stream(**fields)


@cache
def all_streams() -> tuple[Stream, ...]:
    """Return every genuine stream, sorted by name; none if the folder is missing."""
    return tuple(_read(file) for file in sorted(FOLDER.glob("*.json")))


def chat_streams() -> list[Stream]:
    """Return the streams in OpenAI's chat format, of every provider."""
    return [stream for stream in all_streams() if stream.path.endswith("/chat/completions")]


def anthropic_streams() -> list[Stream]:
    """Return the streams in Anthropic's messages format."""
    return [stream for stream in all_streams() if stream.path.endswith("/v1/messages")]


def responses_streams() -> list[Stream]:
    """Return the streams in OpenAI's Responses format, of every provider."""
    return [stream for stream in all_streams() if "responses" in stream.path.split("/")]


def name_of(stream: Stream) -> str:
    """Return the id of a test that is parametrized by streams."""
    return stream.name
