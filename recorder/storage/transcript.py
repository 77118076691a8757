"""The rows of the view `transcripts` for one conversation: its messages, and its runs without a message.

Each row is read once, so that the time grows with the length of the conversation, and not with its square.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recorder.messages import BaseMessage, after_last_reply
from recorder.storage.rows import COMPLETE

Row = Mapping[str, Any]


def transcript_of(
    messages: Sequence[Row], runs: Sequence[Row], texts: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """A row for each message and each run without a message, ordered by position and branch.

    `runs` are in the order in which they began. `texts` are the text tokens of each run, by its id. A run without a
    message gets the branch after those of the answers to the same question.
    """
    by_id = {str(run["id"]): run for run in runs}
    rows = [_message_row(message, by_id.get(str(message["run_id"]))) for message in messages]
    rows += _unanswered(messages, runs, texts)
    return sorted(rows, key=lambda row: (row["position"], row["branch"]))


def in_order(messages: Sequence[Row]) -> list[Row]:
    """The rows in reading order: each row after its parent, one branch after the other."""
    children: dict[Any, list[Row]] = {}
    known = {row["message_id"] for row in messages if row["message_id"]}
    for row in messages:
        children.setdefault(row["parent_id"] if row["parent_id"] in known else None, []).append(row)
    ordered: list[Row] = []
    pending = children.pop(None, [])[::-1]
    while pending:
        row = pending.pop()
        ordered.append(row)
        if row["message_id"]:
            # `pop`, because a database from somebody else may have two messages with the same id.
            pending += children.pop(row["message_id"], [])[::-1]
    return ordered


def _message_row(message: Row, run: Row | None) -> dict[str, Any]:
    about = {"status": COMPLETE, "model": None, "error": None} if run is None else made_by(run)
    return {**message, **about}


def _unanswered(
    messages: Sequence[Row], runs: Sequence[Row], texts: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Any]]:
    positions = {message["message_id"]: message["position"] for message in messages}
    branches = Counter(message["parent_id"] for message in messages)
    for run in runs:
        if run["response_message_id"] is not None:
            continue
        parent = run["prompt_message_id"]
        branches[parent] += 1
        yield {
            "message_id": None, "parent_id": parent, "branch": branches[parent],
            "position": positions[parent] + 1 if parent in positions else 0,
            "role": "assistant", "content": "".join(texts.get(str(run["id"]), ())) or None, "run_id": run["id"],
            "created_at": run["first_token_at"] or run["started_at"], "parts": None, **made_by(run),
            "started_at": run["started_at"], "said_at": run["said_at"],
        }  # fmt: skip


def made_by(run: Row) -> dict[str, Any]:
    """The columns of a message that tell about the run which produced it."""
    return {
        "status": run["status"],
        "model": run["response_model"] or run["request_model"],
        "error": error_text(run["error_type"], run["error_message"]),
    }


def prompt_of(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The prompt without its history: the messages after the last reply.

    A prompt that ends with the beginning of a reply is shown from its last question on.
    """
    questions = [place for place, message in enumerate(messages) if message.role == "user"]
    return after_last_reply(messages) or messages[questions[-1] if questions else 0 :]


def error_text(kind: str | None, message: str | None) -> str | None:
    """The error's class and message, as in a traceback's last line; None if neither is known."""
    return ": ".join(part for part in (kind, message) if part) or None
