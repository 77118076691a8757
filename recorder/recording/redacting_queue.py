"""The queue of a recorder that redacts: it gets tokens only when it is decided that they are no part of a match."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.core.waitable import Wait
from recorder.recording.buffer import OpenRun, TokenValue, size_of_content
from recorder.recording.held_tokens import HeldToken, HeldTokens
from recorder.recording.queue import TOKEN_COST, PendingPut, RecordingQueue
from recorder.redaction.scans import WITHHELD, shown
from recorder.storage.rows import RunEnd
from recorder.wire.deltas import TEXT, Delta


class RedactingQueue(RecordingQueue):
    """A `RecordingQueue` that redacts the tokens of its runs."""

    def put(self, run: OpenRun, text: str, at_us: int) -> Wait[None] | None:
        """As `RecordingQueue.put`. What is undecided is held back."""
        if run.ended:
            return super().put(run, "", at_us)  # it is dropped, and counted
        return self._put_decided(run, self._held(run, [Delta(text)], at_us))

    def put_frame(
        self, run: OpenRun, frame: bytes | None, deltas: Sequence[Delta], at_us: int
    ) -> Wait[None] | None:
        """As `put`, for deltas. Frames are not stored."""
        if run.ended:
            return super().put_frame(run, None, [Delta("")] * len(deltas), at_us)
        return self._put_decided(run, self._held(run, deltas, at_us))

    def end(self, run: OpenRun, end: RunEnd) -> None:
        """End a run. What was held back is stored before, as far as it is no match. Takes no lock, as in the queue."""
        if not run.ended and (held := run.held) is not None:
            run.held = None
            if tokens := self._finished(run, held):
                left = [_pending_put(run, tokens)]  # an action may run twice
                self.call_soon(lambda: left and self._accept_or_drop(left.pop()))
        super().end(run, end)

    def _held(self, run: OpenRun, deltas: Sequence[Delta], at_us: int) -> Sequence[HeldToken]:
        """Add tokens to those that wait; returns those that may be stored. If it fails, nothing of them is stored."""
        if (held := run.held) is None:
            held = run.held = _tokens_of(run)
        try:
            found: Sequence[HeldToken] = ()
            for delta in deltas:
                decided = held.add(delta, at_us)
                found = [*found, *decided] if found else decided
        except Exception as error:  # a bug in recorder; the text must not be stored
            _note(run, error)
            return [HeldToken(Delta(shown(WITHHELD)), at_us)]
        return found

    def _finished(self, run: OpenRun, held: HeldTokens) -> Sequence[HeldToken]:
        try:
            return held.finish()
        except Exception as error:  # a bug in recorder; what was held back is not stored
            _note(run, error)
            return ()

    def _put_decided(self, run: OpenRun, tokens: Sequence[HeldToken]) -> Wait[None] | None:
        wait = None
        for token in tokens:
            delta = token.delta
            if delta.kind == TEXT and delta.idx == "0":
                wait = super().put(run, delta.text, token.at_us) or wait
            else:
                wait = super().put_frame(run, None, [delta], token.at_us) or wait
        return wait


def _pending_put(run: OpenRun, tokens: Sequence[HeldToken]) -> PendingPut:
    flat: list[int | TokenValue] = []
    size = 0
    for token in tokens:
        text, kind, idx = token.delta
        flat += (token.at_us, text if kind == TEXT and idx == "0" else (text, kind, idx))
        size += size_of_content(token.text) + TOKEN_COST
    return PendingPut(run, flat, None, tokens[-1].at_us, size, on_loop=True)


def _tokens_of(run: OpenRun) -> HeldTokens:
    redacts = run.start.redacts
    assert redacts is not None  # `RedactingRecorder.start` sets it
    return HeldTokens(redacts.redaction, redacts.counts)


def _note(run: OpenRun, error: Exception) -> None:
    if (redacts := run.start.redacts) is not None:
        redacts.counts.failed(f"{type(error).__name__} in recorder; please report this")
