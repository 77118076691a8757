"""Finds the messages that a recorder meant, which stored something below a message while its id was changed.

A recorder looks up the messages of a conversation, and stores what is new a moment later. In between the id may have
changed. The message that has the new id stands at the same position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def lost_parents(rows: Sequence[Any]) -> dict[str, str]:
    """Id of a parent that is not stored -> the message at its position that was the newest when its child was stored.

    `rows` are all messages of one conversation. A parent without such a message is left out: somebody deleted it.
    """
    there = {row.id for row in rows}
    found: dict[str, str] = {}
    for child in rows:
        if child.parent_id is None or child.parent_id in there:
            continue
        before = [
            row for row in rows if row.position == child.position - 1 and row.created_at <= child.created_at
        ]
        if before:
            found[child.parent_id] = max(before, key=lambda row: (row.created_at, row.id)).id
    return found


def lost_ends(runs: Sequence[Any], rows: Sequence[Any], parents: Mapping[str, str]) -> dict[str, str]:
    """Id that a run names and that is not stored -> the message: its reply's parent, or its prompt's newest answer."""
    by_id = {row.id: row for row in rows}
    found: dict[str, str] = {}
    for run in runs:
        prompt, reply = run.prompt_message_id, run.response_message_id
        if prompt not in by_id and reply in by_id and (parent := by_id[reply].parent_id) is not None:
            found[prompt] = parents.get(parent, parent)
        if reply is not None and reply not in by_id:
            answers = [row for row in rows if row.parent_id == prompt and row.role == "assistant"]
            if answers:
                found[reply] = max(answers, key=lambda row: (row.created_at, row.id)).id
    return {lost: id for lost, id in found.items() if lost is not None and id in by_id}
