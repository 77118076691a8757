"""The fields in which providers of OpenAI's chat format say a model's thoughts, and how these go back to them.

A reply that calls tools is sent again with the results. Some providers refuse that request unless the thoughts of the
reply come back in the field in which they were sent; others refuse any field that they do not know. What a provider
itself sent it also takes: thoughts go back in the same fields, to the same host, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorder.messages import AIMessage

#: Fields of a delta or a message whose text is what the model thinks. Where a text comes in two of them, the first
#: one of these counts: DeepSeek, Kimi, Z.ai; OpenRouter, Groq, Cerebras, newer vLLM; GitHub Copilot; smaller servers.
FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought", "thoughts")
#: Parts of the thoughts, with signatures and encrypted data: OpenRouter, MiniMax.
DETAILS = "reasoning_details"
#: The field of thoughts that are blocks of the content: Mistral.
IN_CONTENT = "content"
#: The key of `response_metadata` that says which host a reply came from, and in which fields its thoughts came.
ORIGIN = "origin"


def origin_of(host: str | None, fields: Sequence[str], calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `response_metadata` says of a reply's origin: only of one that holds what has to go back to its host."""
    if host is None or not calls or not (fields or any(call.get("extras") for call in calls)):
        return {}
    return {ORIGIN: {"host": host, **({"reasoning_fields": list(fields)} if fields else {})}}


def host_of(message: AIMessage) -> str | None:
    """The host that a reply came from; None where nobody knows."""
    origin = message.response_metadata.get(ORIGIN)
    host = origin.get("host") if isinstance(origin, Mapping) else None
    return host if isinstance(host, str) else None


def fields_of(message: AIMessage) -> dict[str, Any]:
    """The thoughts of a reply in the fields in which they came; those in blocks of the content are in `content`."""
    origin, more = message.response_metadata.get(ORIGIN), message.additional_kwargs
    names = origin.get("reasoning_fields") if isinstance(origin, Mapping) else None
    found: dict[str, Any] = {}
    for name in names if isinstance(names, list) else ():
        if name in FIELDS and more.get(FIELDS[0]):
            found[name] = more[FIELDS[0]]
        elif name == DETAILS and more.get(DETAILS):
            found[name] = more[DETAILS]
        elif name == IN_CONTENT and more.get(FIELDS[0]):
            found[name] = [_block(more[FIELDS[0]])]
    return found


def texts_of(details: Sequence[Any]) -> list[str]:
    """The texts and summaries in the parts of `reasoning_details`."""
    texts = [part.get("text") or part.get("summary") for part in details if isinstance(part, Mapping)]
    return [text for text in texts if isinstance(text, str) and text]


def _block(text: str) -> dict[str, Any]:
    """Thoughts as a block of the content."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
