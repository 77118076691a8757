"""The cursor of a stream: the run, and the number of the next token. Each event has the cursor behind it as its id."""

from __future__ import annotations

import re
from typing import NamedTuple

from recorder.errors import ConfigError
from recorder.replay.playback import EndStep, GapStep, TokensStep

#: What a stream is made of.
PlayedStep = TokensStep | GapStep | EndStep

_CURSOR = re.compile(
    r"(?:(?P<run>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):)?(?P<next>[0-9]{1,15})(?:\.(?P<status>[a-z]{1,20}))?"
)


class StreamCursor(NamedTuple):
    """How far a reader has come in a run."""

    #: The number of the next token.
    next: int = 0
    #: The status in the end that the reader has received; None before the end.
    status: str | None = None


START = StreamCursor()


def cursor_id(run_id: str, next: int, status: str | None = None) -> str:
    """The id of an event: `<run>:<number of the next token>`, and after the end `.` and the status."""
    return f"{run_id}:{next}" if status is None else f"{run_id}:{next}.{status}"


def read_cursor(text: str | None, run_id: str) -> StreamCursor:
    """The cursor that a client sent: the id of the last event it has received; without the run it is a number.

    None is the start. Raises `ConfigError` for any other text, and for a cursor of another run.
    """
    if text is None:
        return START
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"The cursor is {text!r:.80}; send the id of the last event, or the number of the next token"
        )
    if found["run"] not in (None, run_id):
        raise ConfigError(f"The cursor belongs to run {found['run']}, and this is run {run_id}")
    return StreamCursor(int(found["next"]), found["status"])


def run_of_cursor(text: str | None) -> str | None:
    """The run in the id of an event; None for a text that has none."""
    found = _CURSOR.fullmatch(text or "")
    return found["run"] if found else None


def behind(step: PlayedStep, next: int) -> int:
    """The number of the next token after a step, if it was `next` before. It never goes back."""
    if isinstance(step, TokensStep):
        return max(next, step.seq + len(step.items))
    return max(next, step.seq + step.count) if isinstance(step, GapStep) else next


def rest(step: PlayedStep, next: int) -> PlayedStep | None:
    """The part of a step from token `next` on; None if there is none."""
    if isinstance(step, EndStep) or step.seq >= next:
        return step
    if behind(step, 0) <= next:
        return None
    before = next - step.seq
    if isinstance(step, TokensStep):
        return TokensStep(next, step.items[before:])
    return step._replace(seq=next, count=step.count - before)
