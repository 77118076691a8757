"""What redaction costs a token on the application's thread: all patterns with a name, beside recording without."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from uuid import UUID

from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from recorder.core.ids import new_id
from tests.oracle import new_url, sql

TITLE = "Redaction with all patterns that have a name (processor time of the application's thread, a token)"
KINDS = {"text": "words of a text", "tool_args": "arguments of a tool, in JSON"}
#: Runs that are recorded one after the other, and the best of which counts.
_RUNS = 7
#: At most so much more with redaction (us).
_GOAL = 5.0


def rows(settings: Settings) -> list[Row]:
    """For each kind of token a line without and one with redaction."""
    tokens = settings.size(20_000, 2_000)
    sides = {
        f"{kind} {way}": Side(
            "benchmarks.redaction:measured",
            {"kind": kind, "redacts": way == "on", "tokens": tokens},
            folder=True,
        )
        for kind in KINDS
        for way in ("off", "on")
    }
    found = compare(sides, settings.rounds)
    return [row for kind in KINDS for row in _rows(kind, found)]


def _rows(kind: str, found: dict[str, list[Measured]]) -> list[Row]:
    off, on = (best(found[f"{kind} {way}"], "us") for way in ("off", "on"))
    plain, redacted = (each(values(found[f"{kind} {way}"], "us"), ".2f") for way in ("off", "on"))
    return [
        Row(f"{KINDS[kind]}, without redact", f"{off:.2f} us", plain),
        Row(
            f"{KINDS[kind]}, redact", f"{on:.2f} us", redacted, f"{on - off:.2f} us more",
            f"under {_GOAL:g} us more", on - off < _GOAL,
        ),
    ]  # fmt: skip


def measured(kind: str, redacts: bool, tokens: int, folder: str) -> Measured:
    """The least time of a token of several runs. Times of the writer's thread do not count."""
    from pathlib import Path

    from recorder import ChatHistoryCallback
    from recorder.redaction.ready_made import READY_MADE
    from recorder.wire.deltas import Delta

    pieces = _pieces(kind, tokens)
    url = new_url(Path(folder))
    times = []
    with ChatHistoryCallback(url, redact=[*READY_MADE] if redacts else [], capture="tokens") as history:
        for _ in range(_RUNS):
            run_id = UUID(new_id())
            history.on_chat_model_start({}, [[]], run_id=run_id)
            deltas = [[Delta(piece, kind)] for piece in pieces]
            times.append(_seconds(lambda run=run_id, each=deltas: _put(history.on_stream_frame, run, each)))
            history.on_llm_error(RuntimeError("the end"), run_id=run_id)
            history.flush().wait()
    [(stored,)] = sql(url, "SELECT sum(token_count) FROM runs")
    expect(stored, _RUNS * len(pieces))
    return {"us": 1e6 * min(times) / len(pieces)}


def _put(put: Callable[..., object], run_id: UUID, frames: list[list[object]]) -> None:
    for deltas in frames:
        put(b"", 0, deltas, run_id=run_id)


def _seconds(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _pieces(kind: str, tokens: int) -> list[str]:
    """So many pieces of a song; for arguments, those of a JSON object that has the song as a value."""
    from recorder.testing.song import song_pieces

    pieces = song_pieces(tokens)
    if kind == "text":
        return pieces
    return ['{"song": "', *(json.dumps(piece)[1:-1] for piece in pieces), '", "verses": 3}']
