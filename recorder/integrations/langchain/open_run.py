"""One run of a model in LangChain while it is open: which hook its tokens come from, and its requests."""

from __future__ import annotations

from uuid import UUID

from recorder.instrumentation.linked_run import LinkedRun

#: The hooks that report tokens. LangChain's v3 events call both for some models.
TOKENS, EVENTS = "on_llm_new_token", "on_stream_event"


class OpenModelRun:
    """What the handler knows of a run of a model that has not ended."""

    __slots__ = ("channel", "linked", "parent_run_id")

    def __init__(self, parent_run_id: UUID | None, linked: LinkedRun | None) -> None:
        self.parent_run_id = parent_run_id
        #: The HTTP requests of the run; None for several prompts in one call, whose requests cannot be told apart.
        self.linked = linked
        #: The hook that reported the first token; tokens of the other one are the same again.
        self.channel: str | None = None

    def takes(self, channel: str) -> bool:
        """Whether tokens of this hook are recorded."""
        if self.linked is not None and self.linked.has_sent:
            return False  # they come with the bytes
        if self.channel is None:
            self.channel = channel
        return self.channel == channel
