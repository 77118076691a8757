"""A stream as WebSocket messages: one message of JSON for each piece, with the cursor behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from recorder.core.json import dumps
from recorder.replay.playback import EndStep, GapStep
from recorder.server.cursor import PlayedStep, behind, cursor_id
from recorder.server.protocols.event_fields import end_fields, gap_fields, token_fields

#: A message without events. A page cannot see the protocol's own pings.
HEARTBEAT = '{"events":[]}'


def encode(run_id: str, start: int, steps: Sequence[PlayedStep]) -> str:
    """Write steps as one message: `{"id": <cursor>, "events": [...]}`."""
    events: list[dict[str, Any]] = []
    status: str | None = None
    for step in steps:
        events += _events(step)
        start = behind(step, start)
        if isinstance(step, EndStep):
            status = step.run.status
    return dumps({"id": cursor_id(run_id, start, status), "events": events})


def _events(step: PlayedStep) -> Iterator[dict[str, Any]]:
    if isinstance(step, GapStep):
        yield {"event": "gap", **gap_fields(step)}
    elif isinstance(step, EndStep):
        yield {"event": "end", **end_fields(step)}
    else:
        for seq, item in enumerate(step.items, step.seq):
            yield {"event": "token", **token_fields(seq, item)}
