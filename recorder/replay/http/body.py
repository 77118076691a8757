"""The bodies of replayed responses: frames as they came, or made of tokens. Plays and their listeners, without I/O."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from recorder.core.json import loads
from recorder.core.trampoline import Trampoline
from recorder.errors import StoreError
from recorder.replay.pace import Options
from recorder.replay.playback import Ask, Begin, End, Frames, Gap, Part, Play, Tokens, tokens
from recorder.replay.queries import Asking
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.reader import Library, RecordedRun
from recorder.wire import encode
from recorder.wire.deltas import Delta
from recorder.wire.recorded import Recorded
from recorder.wire.sse import parse

_ALL = Options(speed=None)


class Verbatim:
    """The provider's events, byte for byte."""

    def begin(self, begin: Begin) -> Sequence[bytes]:
        """Nothing."""
        return ()

    def take(self, piece: Tokens | Frames) -> Sequence[bytes | None]:
        """The frames."""
        return [data for _, data in piece.items]

    def gap(self, gap: Gap) -> Sequence[bytes]:
        """No client can be shown that something is missing: raises `StoreError`."""
        raise StoreError(f"This run cannot be served on from {gap.seq}: {gap.reason}; record it again")

    def end(self, end: End) -> Sequence[bytes]:
        """Nothing."""
        return ()


class Usageless(Verbatim):
    """The same without the event that has usage and no choices, for a client that did not ask for it."""

    def take(self, piece: Tokens | Frames) -> Sequence[bytes | None]:
        """The frames but that one."""
        return [None if _is_usage(data) else data for _, data in piece.items]


class Encoded(Verbatim):
    """The events of a stream made of its tokens."""

    def __init__(self, stream: encode.StreamEncoder) -> None:
        self._stream = stream
        self._begun = False

    def take(self, piece: Tokens | Frames) -> Sequence[bytes | None]:
        """The events of each token."""
        return [self._said(delta) for _, delta in _timed(piece)]

    def end(self, end: End) -> Sequence[bytes]:
        """The events of the end."""
        return [*self._opening(None), *self._stream.ending()]

    def _said(self, delta: Delta) -> bytes | None:
        return b"".join([*self._opening(delta), *self._stream.events(delta)]) or None

    def _opening(self, first: Delta | None) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        return list(self._stream.opening(first))


def played(run: RecordedRun, part: Part) -> Play:
    """A run from its beginning to its end."""
    yield Begin(run)
    yield from part(run, _ALL)


def at_once(run: RecordedRun, body: bytes, at_us: int) -> Play:
    """A body that comes whole."""
    yield Begin(run)
    yield Frames(0, [(at_us, body)])


def first_frame(run: RecordedRun) -> Asking[bytes | None]:
    """The first event, or the whole body of an answer that was not streamed; None of a run without frames."""
    rows = yield Ask(Library.frames, run.id, 0, 1)
    return split(decompress(rows[0].data, rows[0].dictionary))[0][1] if rows else None


def encoded_whole(wire: str, run: RecordedRun, about: Recorded) -> Asking[bytes]:
    """A run as one body in this format. Raises `StoreError` for an answer that is too long for one."""
    return encode.body(wire, about, (yield from _deltas(run)))


def _deltas(run: RecordedRun) -> Generator[Ask, Any, list[tuple[int, Delta]]]:
    steps, answer = Trampoline(tokens(run, _ALL)), None
    found: list[tuple[int, Delta]] = []
    while (step := steps.step(answer)) is not None:
        answer = (yield step) if isinstance(step, Ask) else None
        if isinstance(step, Tokens):
            found += _timed(step)
        elif isinstance(step, Gap):
            Verbatim().gap(step)
    return found


def _timed(piece: Tokens | Frames) -> list[tuple[int, Delta]]:
    return [(at_us, Delta(*said)) for at_us, *said in piece.items]


def _is_usage(frame: bytes) -> bool:
    if b'"usage"' not in frame or (data := parse(frame).data) is None:
        return False
    try:
        said = loads(data)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("choices") == [] and bool(said.get("usage"))
