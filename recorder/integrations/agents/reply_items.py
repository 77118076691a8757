"""Reads the items of a recorded reply as the provider sent them, from the last event of its response.

A message has the meaning of its items, but not their ids, and not the text of their arguments. Both are in the frames
of a reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.core.json import loads
from recorder.errors import StoreError
from recorder.integrations.agents.items import Item
from recorder.messages import BaseMessage
from recorder.messages.identity import content_key
from recorder.replay.playback import QueryStep
from recorder.replay.queries import Queries
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.newest_branch import BranchMessage
from recorder.storage.reader import DatabaseReader
from recorder.storage.rows import FrameRow
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.sse import parse_frame_or_body


def reply_items(each: BranchMessage) -> Queries[list[Item] | None]:
    """The items of this message; None if it is no reply, or if no frame has all of it."""
    if each.run_id is None or each.message.role != "assistant":
        return None
    rows = yield QueryStep(DatabaseReader.last_frames, each.run_id)
    try:
        found = _output_in(rows)
    except (StoreError, ValueError):  # a damaged frame; the message itself is there
        return None
    return found if found and _means(found, each.message) else None


def _output_in(rows: Sequence[FrameRow]) -> list[Item]:
    for row in rows:
        *_, (_, frame) = split(decompress(row.data, row.dictionary))
        fields = loads(parse_frame_or_body(frame).data or b"null")
        response = fields.get("response", fields) if isinstance(fields, dict) else None
        output = response.get("output") if isinstance(response, dict) else None
        if isinstance(output, list) and all(isinstance(item, dict) for item in output):
            return output
    return []


def _means(items: list[Any], message: BaseMessage) -> bool:
    """Whether the items are the same reply as the message."""
    found = responses_messages({"input": items})
    return len(found) == 1 and content_key(found[0]) == content_key(message)
