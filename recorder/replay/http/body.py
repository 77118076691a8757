"""The bodies of replayed responses: the recorded frames, or frames encoded from tokens. Does no I/O."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from recorder.core.json import loads
from recorder.core.trampoline import Trampoline
from recorder.errors import StoreError
from recorder.replay.pace import Options
from recorder.replay.playback import (
    BeginStep,
    EndStep,
    FramesStep,
    GapStep,
    Playback,
    PlayRun,
    QueryStep,
    TokensStep,
    tokens,
)
from recorder.replay.queries import Queries
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.reader import DatabaseReader, RecordedRun
from recorder.wire import encode
from recorder.wire.deltas import Delta
from recorder.wire.recorded_run import Recorded
from recorder.wire.sse import parse

_ALL = Options(speed=None)


class Verbatim:
    """The recorded frames byte for byte."""

    def begin(self, begin: BeginStep) -> Sequence[bytes]:
        """No frames."""
        return ()

    def take(self, piece: TokensStep | FramesStep) -> Sequence[bytes | None]:
        """All frames."""
        return [data for _, data in piece.items]

    def gap(self, gap: GapStep) -> Sequence[bytes]:
        """Raises `StoreError`: no provider has an event for missing tokens."""
        raise StoreError(
            f"This run has a gap at {gap.seq} ({gap.reason}) and cannot be served; record it again"
        )

    def end(self, end: EndStep) -> Sequence[bytes]:
        """No frames."""
        return ()


class WithoutUsage(Verbatim):
    """The recorded frames without the one that has only usage, for a client that did not request usage."""

    def take(self, piece: TokensStep | FramesStep) -> Sequence[bytes | None]:
        """The frames; None for the usage frame."""
        return [None if _is_usage(data) else data for _, data in piece.items]


class Encoded(Verbatim):
    """Frames that are encoded from the tokens of a run."""

    def __init__(self, stream: encode.StreamEncoder) -> None:
        self._stream = stream
        self._opened = False

    def take(self, piece: TokensStep | FramesStep) -> Sequence[bytes | None]:
        """The frame of each token; None for a token without one."""
        return [self._events(delta) for _, delta in _timed(piece)]

    def end(self, end: EndStep) -> Sequence[bytes]:
        """The last frames."""
        return [*self._opening(None), *self._stream.ending()]

    def _events(self, delta: Delta) -> bytes | None:
        return b"".join([*self._opening(delta), *self._stream.events(delta)]) or None

    def _opening(self, first: Delta | None) -> list[bytes]:
        if self._opened:
            return []
        self._opened = True
        return list(self._stream.opening(first))


def played(run: RecordedRun, play_run: PlayRun) -> Playback:
    """The playback of a run from its begin to its end."""
    yield BeginStep(run)
    yield from play_run(run, _ALL)


def single_body(run: RecordedRun, body: bytes, at_us: int) -> Playback:
    """The playback of a body that is sent at once, `at_us` after the request."""
    yield BeginStep(run)
    yield FramesStep(0, [(at_us, body)])


def first_frame(run: RecordedRun) -> Queries[bytes | None]:
    """The first frame; the complete body if the response was not streamed; None for a run without frames."""
    rows = yield QueryStep(DatabaseReader.frames, run.id, 0, 1)
    return split(decompress(rows[0].data, rows[0].dictionary))[0][1] if rows else None


def encoded_body(wire: str, run: RecordedRun, recorded: Recorded) -> Queries[bytes]:
    """A run as one body that is not streamed, in this wire format. Raises `StoreError` if it is too long for one."""
    return encode.body(wire, recorded, (yield from _deltas(run)))


def _deltas(run: RecordedRun) -> Generator[QueryStep, Any, list[tuple[int, Delta]]]:
    steps, answer = Trampoline(tokens(run, _ALL)), None
    found: list[tuple[int, Delta]] = []
    while (step := steps.step(answer)) is not None:
        answer = (yield step) if isinstance(step, QueryStep) else None
        if isinstance(step, TokensStep):
            found += _timed(step)
        elif isinstance(step, GapStep):
            Verbatim().gap(step)
    return found


def _timed(piece: TokensStep | FramesStep) -> list[tuple[int, Delta]]:
    return [(at_us, Delta(*fields)) for at_us, *fields in piece.items]


def _is_usage(frame: bytes) -> bool:
    if b'"usage"' not in frame or (data := parse(frame).data) is None:
        return False
    try:
        fields = loads(data)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("choices") == [] and bool(fields.get("usage"))
