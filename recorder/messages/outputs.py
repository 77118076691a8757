"""The results of a model call: generations, and `LLMResult`, which holds them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from recorder.messages.base import AIMessageChunk, BaseMessage
from recorder.messages.merge import Content, merge_dicts


class Generation:
    """One text of a completion model."""

    __slots__ = ("generation_info", "text")
    __hash__ = None  # type: ignore[assignment]  # mutable, and equal by value

    type: str = "Generation"
    _shown: tuple[str, ...] = ("text", "generation_info")

    #: What the provider sent besides the text: finish_reason, logprobs.
    generation_info: dict[str, Any] | None

    def __init__(self, text: str = "", generation_info: dict[str, Any] | None = None) -> None:
        self.text = text
        self.generation_info = generation_info

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name in self._shown)
        fields = ", ".join(f"{name}={value!r}" for name, value in shown if value is not None)
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._shown)


class GenerationChunk(Generation):
    """A streamed piece of a `Generation`. `+` joins two pieces."""

    __slots__ = ()
    type = "GenerationChunk"

    def __add__(self, other: GenerationChunk) -> GenerationChunk:
        if not isinstance(other, GenerationChunk):
            return NotImplemented
        return GenerationChunk(self.text + other.text, _merge_info([self, other]))

    @property
    def content(self) -> str:
        """The text; a message has the same attribute."""
        return self.text


class ChatGeneration(Generation):
    """One message of a chat model. `text` is the text of the message."""

    __slots__ = ("message",)
    type = "ChatGeneration"
    _shown = ("text", "generation_info", "message")

    message: BaseMessage

    def __init__(self, message: BaseMessage, generation_info: dict[str, Any] | None = None) -> None:
        self.message = message
        self.generation_info = generation_info

    @property
    def text(self) -> str:  # type: ignore[override]  # computed when it is read: most chunks' is never read
        """The text parts of the message, joined."""
        return self.message.text


class ChatGenerationChunk(ChatGeneration):
    """A streamed piece of a `ChatGeneration`. `+` joins it with one piece or a list of pieces."""

    __slots__ = ()
    type = "ChatGenerationChunk"

    message: AIMessageChunk

    # Without super(): one object is made for each token.
    def __init__(self, message: AIMessageChunk, generation_info: dict[str, Any] | None = None) -> None:
        self.message = message
        self.generation_info = generation_info

    @property
    def content(self) -> Content:
        """The content of the message."""
        return self.message.content

    def __add__(self, other: ChatGenerationChunk | Sequence[ChatGenerationChunk]) -> ChatGenerationChunk:
        others = [other] if isinstance(other, ChatGenerationChunk) else other
        if not isinstance(others, (list, tuple)):
            return NotImplemented
        message = self.message + [chunk.message for chunk in others]
        return ChatGenerationChunk(message, _merge_info([self, *others]))


def _merge_info(chunks: Sequence[Generation]) -> dict[str, Any] | None:
    return merge_dicts({}, *[chunk.generation_info for chunk in chunks if chunk.generation_info]) or None


class LLMResult:
    """All generations of a call: one list for each prompt, with one generation for each choice."""

    __slots__ = ("generations", "llm_output", "run")
    __hash__ = None  # type: ignore[assignment]  # mutable, and equal by value

    type: str = "LLMResult"

    def __init__(
        self,
        generations: Sequence[Sequence[Generation]],
        llm_output: dict[str, Any] | None = None,
        run: list[Any] | None = None,
    ) -> None:
        self.generations = [list(choices) for choices in generations]
        #: `{"token_usage": {...}, "model_name": ...}`
        self.llm_output = llm_output
        #: One `RunInfo` for each prompt.
        self.run = run

    def flatten(self) -> list[LLMResult]:
        """One result for each prompt. Only the first has the usage, so that it is not counted twice."""
        return [LLMResult([choices], self._output_of(at)) for at, choices in enumerate(self.generations)]

    def _output_of(self, at: int) -> dict[str, Any] | None:
        if at == 0 or self.llm_output is None:
            return self.llm_output
        return {**copy.deepcopy(self.llm_output), "token_usage": {}}

    def __repr__(self) -> str:
        run = "" if self.run is None else f", run={self.run!r}"
        return f"LLMResult(generations={self.generations!r}, llm_output={self.llm_output!r}{run})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LLMResult):
            return NotImplemented
        # As in LangChain, `run` is not compared.
        return self.generations == other.generations and self.llm_output == other.llm_output


class RunInfo:
    """The id of the run that answered one prompt."""

    __slots__ = ("run_id",)

    def __init__(self, run_id: Any) -> None:
        self.run_id = run_id

    def __repr__(self) -> str:
        return f"RunInfo(run_id={self.run_id!r})"

    def __eq__(self, other: object) -> bool:
        return self.run_id == other.run_id if isinstance(other, RunInfo) else NotImplemented
