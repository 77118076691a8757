"""One run of a completion model over a wire format: makes pieces of text and generations from the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recorder.messages import AIMessage, BaseMessage, Generation, GenerationChunk, LLMResult
from recorder.runs.run import WireRun
from recorder.wire.deltas import TEXT, Delta


class CompletionRun(WireRun[str]):
    """A run whose chunks are pieces of the first choice's text."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: Name of a list of log probabilities -> how many of them were reported.
        self._reported_logprobs: dict[str, int] = {}

    def answer(self) -> str:
        """The text of the first choice."""
        return self.reply.text()

    def merged(self, chunks: Sequence[str]) -> dict[str, Any]:
        """The result, as LangChain's end event shows it."""
        result = self.result()
        return {
            "generations": [[_event_form(each) for each in choices] for choices in result.generations],
            "llm_output": result.llm_output,
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _emit(self, deltas: Sequence[Delta]) -> str | None:
        text = "".join([text for text, kind, idx in deltas if kind == TEXT and idx == "0"])
        if not text and not self._has_new_metadata():
            return None
        if self._wants_tokens:
            self._report_token(text, GenerationChunk(text, self._info()))
        self._has_emitted = True
        self._reported_reasons = self._reasons()
        self._reported_usage = self.reply.usage
        return text

    def _info(self) -> dict[str, Any]:
        """The finish reason and the log probabilities of one piece."""
        reason = self.reply.finish_reasons.get(0)
        finished = reason if reason != self._reported_reasons[0] else None
        return {"finish_reason": finished, "logprobs": self._new_logprobs()}

    def _new_logprobs(self) -> dict[str, list[Any]] | None:
        known = self.reply.logprobs.get(0)
        if known is None:
            return None
        added = {key: tokens[self._reported_logprobs.get(key, 0) :] for key, tokens in known.items()}
        self._reported_logprobs = {key: len(tokens) for key, tokens in known.items()}
        return added if any(added.values()) else None

    def _generations(self) -> list[Generation]:
        return [self._generation(choice) for choice in self.reply.choices]

    def _generation(self, choice: int) -> Generation:
        reply = self.reply
        info = {"finish_reason": reply.finish_reasons.get(choice), "logprobs": reply.logprobs.get(choice)}
        return Generation(reply.text(choice), {**info, **reply.choice_metadata.get(choice, {})})

    def _replies(self, result: LLMResult) -> list[BaseMessage]:
        ids = [f"{self._chunk_id}-{number}" if number else self._chunk_id for number in self.reply.choices]
        return [AIMessage(each.text, id=id) for each, id in zip(result.generations[0], ids, strict=True)]

    def _output(self) -> dict[str, Any]:
        return {**self.reply.metadata, **super()._output()}


def _event_form(generation: Generation) -> dict[str, Any]:
    return {"text": generation.text, "generation_info": generation.generation_info, "type": generation.type}
