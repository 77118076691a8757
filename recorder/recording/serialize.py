"""From what was taken of a run to the rows that are stored: JSON, hashes, compression. No I/O.

Every step takes a whole batch in few calls into C: against an application that keeps its thread busy each
hand-over of the interpreter's lock costs up to 5 ms.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from time import sleep
from typing import NamedTuple

import orjson

from recorder.core.clock import monotonic_us
from recorder.core.escaping import escape
from recorder.recording.buffer import Frames, Item, Taken, Tokens
from recorder.storage.compression import compress
from recorder.storage.frame_block import join
from recorder.storage.rows import STREAMING, FrameRow, GapRow, RunEnd, RunRows, RunSeal, RunStart, SegmentRow

log = logging.getLogger("recorder")

#: Longest row: tokens, frames and bytes of frames. Readers page by rows, so rows stay small.
MAX_ROW_TOKENS = 2_000
MAX_ROW_FRAMES = 1_000

#: Above this many bytes a hash gives the interpreter's lock away (CPython's HASHLIB_GIL_MINSIZE is 2048).
_HASH_PIECE = 2_000
#: Why a run that goes on in another file lacks its first tokens there.
MOVED = "stored before the file was moved, deleted, replaced or damaged"


@dataclass(slots=True)
class Sealing:
    """What is remembered of an open run from batch to batch."""

    tokens: int = 0
    frames: int = 0
    #: Offset of the first token, None before it.
    first_us: int | None = None
    #: Whether frames could not be compressed.
    frames_lost: bool = False
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    frames_hash: hashlib._Hash | None = None
    #: Whether the run's own row has been packed; whether something of it could not be.
    opened: bool = False
    broken: bool = False
    #: The number of the token that comes next, and which of the recorder's files has the run.
    next: int = 0
    file: int = 0

    def add(self, count: int, text: bytes) -> None:
        """So many tokens more, as they are stored: the hash runs over the texts joined by commas, however they were cut
        into rows."""
        _update(self.hash, (b"," if self.tokens else b"") + text[1:-1])
        self.tokens += count

    def lose(self, count: int) -> None:
        """So many of the tokens, and their frames, are not stored after all."""
        self.tokens -= count
        self.broken = self.frames_lost = True

    def proof(self) -> str | None:
        """The hash of the tokens, unless some of them could not be stored."""
        return None if self.broken else self.hash.hexdigest()

    def begin_again(self, file: int, *, frames_stored: int = 0) -> None:
        """Count anew, in another file, which gets so many of the frames until now."""
        self.file = file
        self.tokens, self.hash = 0, hashlib.sha256()
        self.frames_lost = self.frames_lost or self.frames > frames_stored


class Courtesy:
    """Lets other threads run every few runs, so that an event loop is not late for a whole batch.

    Without it a thread that wants the interpreter's lock waits until this one has had it for 5 ms. Against an
    application that keeps the lock as long, getting it back costs 5 ms each time: then it is asked only once.
    """

    _EVERY = 8
    _TOO_LONG_US = 1_000

    def __init__(self) -> None:
        self._left = self._EVERY

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            before = monotonic_us()
            sleep(0)
            self._left = self._EVERY if monotonic_us() - before < self._TOO_LONG_US else -1


def pack(taken: Sequence[Taken], file: int = 0) -> list[RunRows]:
    """The rows of a batch, sorted by run, so that two writers never lock in opposite order.

    `file` is the number of the file that they go into, among those that the recorder has written.
    """
    give_way = Courtesy()
    found: list[RunRows] = []
    blobs = Blobs()
    for part in sorted(taken, key=lambda part: part.run.start.run_id):
        try:
            found.append(_pack_run(part, blobs, file))
        except Exception:  # a bug of ours, which must end neither the recording nor that of other runs
            log.exception("Tokens of run %s could not be packed; please report this", part.run.start.run_id)
            found.append(without_tokens(part, file))
            blobs.forget(part.run.start)
        give_way()
    blobs.compress()
    return found


class Blob(NamedTuple):
    """What becomes a row of frames: everything but the compressed bytes."""

    rows: RunRows
    memory: Sealing
    #: Run, number of its first frame, of its first token, count, and time of the first.
    shell: tuple[str, int, int, int, int]
    data: bytes


class Blobs:
    """Frames of a batch, which are compressed in one call."""

    def __init__(self) -> None:
        self._blobs: list[Blob] = []

    def add(
        self, rows: RunRows, memory: Sealing, numbers: tuple[int, int], data: list[bytes], at_us: list[int]
    ) -> None:
        """What becomes a row of frames; the numbers of its first frame and first token."""
        shell = (rows.start.run_id, *numbers, len(data), at_us[0])
        self._blobs.append(Blob(rows, memory, shell, join(data, at_us)))

    def forget(self, start: RunStart) -> None:
        """Leave out the rows of a run that came last."""
        while self._blobs and self._blobs[-1].rows.start is start:
            self._blobs.pop()

    def compress(self) -> None:
        """Give each run its rows; all runs in one call, or each in its own where that fails."""
        try:
            packed = _compressed(self._blobs)
        except Exception:  # no memory for all of them
            packed = []
        done = 0
        for _, group in groupby(self._blobs, key=lambda blob: id(blob.rows)):
            blobs = [*group]
            try:
                blobs[0].rows.frames = packed[done : done + len(blobs)] or _compressed(blobs)
            except Exception:
                _leave_out_frames(blobs[0])
            done += len(blobs)


def _compressed(blobs: Sequence[Blob]) -> list[FrameRow]:
    packed = compress([blob.data for blob in blobs], [blob.rows.start.wire for blob in blobs])
    return [FrameRow(*blob.shell, *row) for blob, row in zip(blobs, packed, strict=True)]


def _leave_out_frames(blob: Blob) -> None:
    """Without all frames there is no proof of them, now or at the run's end."""
    log.exception("Frames of run %s could not be compressed and are left out", blob.rows.start.run_id)
    blob.memory.frames_lost = True
    if blob.rows.seal is not None:
        blob.rows.seal.frames_sha256 = None


def gap_of_move(run_id: str, count: int) -> list[GapRow]:
    """The gap of a run whose first tokens are in another file."""
    return [GapRow(run_id, 0, count, MOVED)] if count else []


def _pack_run(taken: Taken, blobs: Blobs, file: int) -> RunRows:
    run = taken.run
    memory = run.state if isinstance(run.state, Sealing) else Sealing(file=file)
    run.state = memory
    rows = RunRows(run.start, opens=not memory.opened, bytes=taken.bytes)
    memory.opened = True
    if memory.file != file:  # it was idle, and streams again
        rows.gaps = gap_of_move(run.start.run_id, memory.next)
        memory.begin_again(file)
    for tokens in taken.tokens:
        _pack_tokens(rows, memory, tokens)
    for frames in taken.frames:
        _pack_frames(rows, memory, frames, blobs)
    if taken.gaps:
        rows.gaps = [*rows.gaps, *(GapRow(run.start.run_id, *gap) for gap in taken.gaps)]
        memory.next = max(memory.next, *(seq + count for seq, count, _ in taken.gaps))
    if taken.end is not None:
        if memory.first_us is not None:
            taken.end.first_token_at = run.start.started_at + timedelta(microseconds=memory.first_us)
        # Frames that found no room leave no gap, so that without all of them there is no proof.
        whole = memory.frames == run.first_frame and not memory.frames_lost
        proof = memory.frames_hash.hexdigest() if memory.frames_hash and whole else None
        rows.seal = RunSeal(taken.end, memory.tokens, memory.proof(), proof)
        rows.seal.metadata = run.start.mask.new_metadata() if run.start.mask is not None else None
    elif taken.reopened:
        rows.seal = _reopening()
    return rows


def _reopening() -> RunSeal:
    """What a run's row says while it streams, in place of the end that was stored when it was idle."""
    return RunSeal(RunEnd(STREAMING, None), 0, None, None)


def without_tokens(taken: Taken, file: int) -> RunRows:
    """The run without these tokens, which become gaps, and from here on without a proof that it is whole."""
    run = taken.run
    memory = run.state if isinstance(run.state, Sealing) else Sealing(file=file)
    run.state = memory
    rows = RunRows(run.start, opens=not memory.opened, bytes=taken.bytes)
    memory.opened = True
    memory.broken = True
    why = "could not be packed"
    rows.gaps = [GapRow(run.start.run_id, part.seq, len(part), why) for part in taken.tokens]
    rows.gaps += [GapRow(run.start.run_id, *gap) for gap in taken.gaps]
    memory.next = max([memory.next, *(row.seq + row.count for row in rows.gaps)])
    rows.unpacked = sum(map(len, taken.tokens))
    if taken.end is not None:
        rows.seal = RunSeal(taken.end, memory.tokens, None, None)
    elif taken.reopened:
        rows.seal = _reopening()
    return rows


def _pack_tokens(rows: RunRows, memory: Sealing, tokens: Tokens) -> None:
    every = tokens.items()
    if memory.first_us is None and every:
        memory.first_us = every[0][0]
    for start in range(0, len(every), MAX_ROW_TOKENS):
        items = every[start : start + MAX_ROW_TOKENS]
        text = encode_deltas(items)
        memory.add(len(items), text)
        rows.tokens += len(items)
        row = SegmentRow(rows.start.run_id, tokens.seq + start, len(items), text.decode())
        rows.segments.append(row)
    memory.next = tokens.seq + len(every)


def encode_deltas(items: Sequence[Item]) -> bytes:
    """The deltas as stored JSON, UTF-8."""
    try:
        text = orjson.dumps(items)
        if b"\\u0000" not in text and b"\xef\xb7\x90" not in text:
            return text
    except TypeError:  # a lone surrogate
        pass
    return orjson.dumps([(item[0], *map(escape, item[1:])) for item in items])


def _pack_frames(rows: RunRows, memory: Sealing, frames: Frames, blobs: Blobs) -> None:
    every, at_us = frames.data, frames.at_us
    for start in range(0, len(every), MAX_ROW_FRAMES):
        data = every[start : start + MAX_ROW_FRAMES]
        joined = b"".join(data)
        # Here and not where they come: one look at all frames of a row, and none of it on the application's thread.
        if (mask := rows.start.mask) is not None and mask.is_in(joined):
            data = mask.frames(data)
            joined = b"".join(data)
        memory.frames_hash = memory.frames_hash or hashlib.sha256()
        _update(memory.frames_hash, joined)
        memory.frames += len(data)
        # A seek starts at this row or earlier: rows of one cut share its first token.
        times = at_us[start : start + MAX_ROW_FRAMES]
        blobs.add(rows, memory, (frames.seq + start, frames.first_delta), data, times)


def _update(digest: hashlib._Hash, data: bytes) -> None:
    if len(data) <= _HASH_PIECE:
        digest.update(data)
        return
    view = memoryview(data)
    for start in range(0, len(view), _HASH_PIECE):
        digest.update(view[start : start + _HASH_PIECE])
