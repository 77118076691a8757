"""A stream as server-sent events: one event for each token, `gap` for missing ones, and `end`.

The id of an event is the cursor behind it, so a client that sends the last id it has seen gets the rest. The data is
JSON on one line: a token's own line breaks cannot end the event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from recorder.core.json import dumps
from recorder.replay.playback import EndStep, GapStep
from recorder.server.cursor import PlayedStep, behind, cursor_id
from recorder.server.protocols.event_fields import end_fields, gap_fields, token_fields

#: Before the first event: how long a browser waits before it connects again (milliseconds).
OPENING = b"retry: 1000\n\n"
#: A comment, which clients ignore.
HEARTBEAT = b":\n\n"


def encode(run_id: str, start: int, steps: Sequence[PlayedStep]) -> bytes:
    """Write steps as events."""
    lines: list[str] = []
    for step in steps:
        lines += _events(run_id, start, step)
        start = behind(step, start)
    return "".join(lines).encode()


def _events(run_id: str, start: int, step: PlayedStep) -> Iterator[str]:
    if isinstance(step, GapStep):
        yield _event("gap", cursor_id(run_id, behind(step, start)), gap_fields(step))
    elif isinstance(step, EndStep):
        yield _event("end", cursor_id(run_id, start, step.run.status), end_fields(step))
    else:
        for seq, item in enumerate(step.items, step.seq):
            yield f"id: {run_id}:{seq + 1}\ndata: {dumps(token_fields(seq, item))}\n\n"


def _event(name: str, id: str, fields: dict[str, Any]) -> str:
    return f"event: {name}\nid: {id}\ndata: {dumps(fields)}\n\n"
