"""The smallest streamed piece, in the words that all wire formats share."""

from __future__ import annotations

from typing import NamedTuple

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

    #: The piece itself; JSON for `citation` and `other`, and for `tool_call`: `{"id", "name"}` and what else there is.
    text: str
    #: text, reasoning, refusal, tool_call, tool_args, citation, signature or other.
    kind: str = TEXT
    #: `choice` or `choice.part`: "0", "1", "0.2".
    idx: str = "0"
