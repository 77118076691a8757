"""The smallest streamed piece of an answer, in the form that all wire formats share."""

from __future__ import annotations

from typing import Any, NamedTuple

from recorder.core.json import dumps

TEXT = "text"
REASONING = "reasoning"
REFUSAL = "refusal"
TOOL_CALL = "tool_call"
TOOL_ARGS = "tool_args"
CITATION = "citation"
SIGNATURE = "signature"
OTHER = "other"


class Delta(NamedTuple):
    """One streamed piece of an answer."""

    #: The piece itself. JSON for `citation`, `other` and `tool_call` (`{"id", "name"}` and other keys of the call).
    text: str
    #: text, reasoning, refusal, tool_call, tool_args, citation, signature or other.
    kind: str = TEXT
    #: The place of the piece, `choice` or `choice.part`: "0", "1", "0.2".
    idx: str = "0"


def as_text(value: Any) -> str:
    """A value as the text of a delta: a string unchanged, any other value as JSON."""
    return value if isinstance(value, str) else dumps(value)
