"""The runs of models in LangChain while they are open: which hook their tokens come from, and their requests."""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

from recorder.instrumentation.linked_run import LinkedRun

#: The hooks that report tokens. LangChain's v3 events call both for some models.
TOKENS, EVENTS = "on_llm_new_token", "on_stream_event"
#: So many open runs are known.
_MOST_RUNS = 10_000


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


class OpenModelRuns:
    """The open runs of models by their id, and by the chain that they belong to."""

    def __init__(self) -> None:
        #: By the integers of their ids, which are hashed faster. For what is called for every token; other callers use
        #: the methods.
        self.by_key: OrderedDict[int, OpenModelRun] = OrderedDict()
        self._children: dict[UUID, list[UUID]] = {}

    def add(self, run_id: UUID, run: OpenModelRun) -> None:
        """Add a run that begins. The oldest ones are forgotten: LangChain never told of their end."""
        self.by_key[run_id.int] = run
        if run.parent_run_id is not None:
            self._children.setdefault(run.parent_run_id, []).append(run_id)
        while len(self.by_key) > _MOST_RUNS:
            try:
                self.by_key.popitem(last=False)
            except KeyError:  # another thread has removed the last one
                return

    def get(self, run_id: UUID) -> OpenModelRun | None:
        """The run; None for one that has ended."""
        return self.by_key.get(run_id.int)

    def pop(self, run_id: UUID) -> OpenModelRun | None:
        """Remove a run that ends."""
        return self.by_key.pop(run_id.int, None)

    def pop_children(self, parent_run_id: UUID) -> list[UUID]:
        """The runs of a chain that have not ended. The chain is forgotten."""
        return [run_id for run_id in self._children.pop(parent_run_id, ()) if run_id.int in self.by_key]
