"""Counts and hashes of a run's tokens and frames, which the serializer keeps from batch to batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

#: `hashlib` gives up Python's global lock for data longer than this many bytes (CPython's HASHLIB_GIL_MINSIZE is 2048).
_HASH_PIECE = 2_000


@dataclass(slots=True)
class RunTotals:
    """What has been serialized of one run for the database file that it is in now."""

    token_count: int = 0
    frame_count: int = 0
    #: Offset of the first token in microseconds; None before the first token.
    first_token_us: int | None = None
    #: Whether some tokens, or some frames, could not be stored. The run then gets no hash of them.
    tokens_lost: bool = False
    frames_lost: bool = False
    tokens_hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    frames_hash: hashlib._Hash | None = None
    #: Whether the run's own row has been serialized.
    row_serialized: bool = False
    #: Number of the next token.
    next_seq: int = 0
    #: Number of the database file that holds the run, counted over the files that this recorder has written.
    file: int = 0

    def add_tokens(self, count: int, text: bytes) -> None:
        """Add `count` tokens. `text` is their stored JSON list; the hash runs over the items joined by commas, so that
        it does not depend on how they are split into rows."""
        update(self.tokens_hash, (b"," if self.token_count else b"") + text[1:-1])
        self.token_count += count

    def add_frames(self, count: int, data: bytes) -> None:
        """Add `count` frames; `data` is all of them, joined."""
        self.frames_hash = self.frames_hash or hashlib.sha256()
        update(self.frames_hash, data)
        self.frame_count += count

    def lose_tokens(self, count: int) -> None:
        """Take `count` tokens back: they and their frames could not be stored."""
        self.token_count -= count
        self.tokens_lost = self.frames_lost = True

    def tokens_sha256(self) -> str | None:
        """Hex digest of the tokens; None if some of them could not be stored."""
        return None if self.tokens_lost else self.tokens_hash.hexdigest()

    def frames_sha256(self, accepted: int) -> str | None:
        """Hex digest of the frames; None without frames, or if one of the `accepted` frames is missing. (A frame that
        was dropped leaves no gap.)"""
        complete = self.frame_count == accepted and not self.frames_lost
        return self.frames_hash.hexdigest() if self.frames_hash and complete else None

    def restart(self, file: int, *, frames_stored: int = 0) -> None:
        """Count the tokens from zero for another file, which gets `frames_stored` of the frames counted until now."""
        self.file = file
        self.token_count, self.tokens_hash = 0, hashlib.sha256()
        self.frames_lost = self.frames_lost or self.frame_count > frames_stored


def update(digest: hashlib._Hash, data: bytes) -> None:
    """Hash the data without giving up Python's global lock; getting it back can cost 5 ms."""
    if len(data) <= _HASH_PIECE:
        digest.update(data)
        return
    view = memoryview(data)
    for start in range(0, len(view), _HASH_PIECE):
        digest.update(view[start : start + _HASH_PIECE])
