"""What becomes of the pieces of a replay: chunks as the model yielded them, or the provider's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.messages import AIMessageChunk, UsageMetadata, text_chunk
from recorder.replay.playback import Begin, End, Frames, Gap, Tokens
from recorder.storage.reader import RecordedRun
from recorder.storage.rows import COMPLETE, ERROR, INCOMPLETE, INTERRUPTED
from recorder.wire import usage
from recorder.wire.deltas import TEXT, Delta
from recorder.wire.formats import filler_of
from recorder.wire.recorded import ANTHROPIC, CHAT


class Chunks:
    """Message chunks of the first choice, one a token; a sum of them is the final message."""

    def __init__(self) -> None:
        self._id = ""
        self._filler = filler_of(None, None)

    def begin(self, begin: Begin) -> Sequence[AIMessageChunk]:
        run = begin.run
        self._id = f"run-{run.id}"
        self._filler = filler_of(run.wire, run.request)
        return ()

    def take(self, piece: Tokens | Frames) -> Sequence[AIMessageChunk | None]:
        chunk_id, chunk = self._id, text_chunk
        if self._filler.plain:
            try:
                return [chunk(text, chunk_id) for _, text in piece.items]  # type: ignore[arg-type]
            except ValueError:
                pass  # there is more than text among them
        return [self._one(*item) for item in piece.items]

    def gap(self, gap: Gap) -> Sequence[AIMessageChunk]:
        shown = {"seq": gap.seq, "count": gap.count, "reason": gap.reason}
        return (AIMessageChunk("", id=self._id, additional_kwargs={"gap": shown}),)

    def end(self, end: End) -> Sequence[AIMessageChunk]:
        run = end.run
        about = AIMessageChunk("", id=self._id, response_metadata=response_metadata(run))
        about.usage_metadata = usage_metadata(run)
        last = AIMessageChunk("", id=self._id, chunk_position="last")
        if run.status in (COMPLETE, INCOMPLETE):
            return about, last
        # What the provider told before it failed, or before the stream was left, the application has heard as well;
        # of Anthropic's counts nothing before the last event.
        counted = about.usage_metadata and (run.status == INTERRUPTED or run.wire != ANTHROPIC)
        heard = (about,) if run.finish_reason or counted else ()
        if run.status == ERROR:
            return heard
        last.response_metadata = {"status": run.status}
        return (*heard, last)

    def chunk(self, deltas: Sequence[Delta]) -> AIMessageChunk | None:
        """The chunk of one event; None where it says nothing of the first choice."""
        chunk = AIMessageChunk("", id=self._id)
        return chunk if self._filler.fill(chunk, deltas) else None

    def _one(self, _at_us: int, text: str, kind: str = TEXT, idx: str = "0") -> AIMessageChunk | None:
        return self.chunk((Delta(text, kind, idx),))


class Bytes:
    """The provider's events, byte for byte."""

    def begin(self, begin: Begin) -> Sequence[bytes]:
        return ()

    def take(self, piece: Tokens | Frames) -> Sequence[bytes]:
        return [data for _, data in piece.items]

    def gap(self, gap: Gap) -> Sequence[bytes]:
        return ()

    def end(self, end: End) -> Sequence[bytes]:
        return ()


def response_metadata(run: RecordedRun) -> dict[str, Any]:
    """What the model said of a reply, as far as it is stored."""
    reason = "stop_reason" if run.wire == ANTHROPIC else "finish_reason"
    said = {
        reason: run.finish_reason,
        "model_name": run.model,
        "id": run.response_id,
        "model_provider": run.provider_name,
    }
    return {name: value for name, value in said.items() if value is not None}


def usage_metadata(run: RecordedRun) -> UsageMetadata | None:
    """The counts in LangChain's shape; None where the provider told none."""
    if run.usage and usage.is_counted(run.usage):
        if run.wire == CHAT:
            return usage.from_openai(run.usage)
        return usage.read(run.usage, anthropic=run.wire == ANTHROPIC, langchain=run.wire is None)
    if run.input_tokens is None or run.output_tokens is None:
        return None
    total = run.total_tokens if run.total_tokens is not None else run.input_tokens + run.output_tokens
    return UsageMetadata(input_tokens=run.input_tokens, output_tokens=run.output_tokens, total_tokens=total)
