"""The evaluations of messages, beside the messages of a conversation or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

#: The evaluations of a conversation, the newest last. Those of sentences are left out.
OF_CONVERSATION = """
SELECT a.run_id, a.message_id, a.name, a.label, a.score, a.created_at
FROM runs AS r JOIN annotations AS a ON a.run_id = r.id
WHERE r.conversation_id = :id AND a.name NOT LIKE '%.sentence'
UNION ALL
SELECT a.run_id, a.message_id, a.name, a.label, a.score, a.created_at
FROM annotations AS a WHERE a.conversation_id = :id AND a.name NOT LIKE '%.sentence'
ORDER BY created_at"""


def add_to(messages: Sequence[dict[str, Any]], rows: Sequence[Row]) -> None:
    """Add `evaluations` to each message: its own, and those of its run as a whole. Of each name, the newest."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        key = row["message_id"] or row["run_id"]
        about = {name: row[name] for name in ("name", "label", "score")}
        found.setdefault(str(key), {})[str(row["name"])] = about
    for message in messages:
        keys = dict.fromkeys(str(message[name]) for name in ("run_id", "message_id") if message[name])
        message["evaluations"] = [each for key in keys for each in found.get(key, {}).values()]
