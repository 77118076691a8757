"""Records chains, graphs, tools and retrievers as runs around the runs of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from recorder.core.clock import now
from recorder.recording.run_end import end_of_error
from recorder.recording.step_values import shortened
from recorder.redaction.masking import Mask
from recorder.storage.rows import COMPLETE, INTERRUPTED, RunEnd

#: LangChain's tag of runs that tools for tracing do not show.
_HIDDEN = "langsmith:hidden"
#: What LangGraph raises to stop a graph until somebody answers; it is no error.
_INTERRUPTS = frozenset(("GraphBubbleUp", "GraphInterrupt"))


@dataclass(slots=True)
class _StepPlace:
    """A step that has not ended."""

    parent: UUID | None
    #: The outermost step around it: all runs in it share one conversation.
    root: UUID
    #: The step that is shown in its place: itself, or the one around a hidden step; None if there is none.
    shown: UUID | None
    #: Whether a step in it waits for somebody: LangGraph ends the graph around it as if it had returned.
    waits: bool = False


class OpenSteps:
    """The steps that run now. `start` and `end` store a run: they are methods of `ChatHistoryCallback`.

    They are passed to each call, because a reference to them would be one to the handler, in a cycle.
    """

    def __init__(self) -> None:
        self._open: dict[UUID, _StepPlace] = {}

    def root_of(self, run_id: UUID) -> UUID:
        """The outermost step around a step; the run itself if it is not known."""
        step = self._open.get(run_id)
        return step.root if step is not None else run_id

    def shown(self, run_id: UUID | None) -> UUID | None:
        """The parent that a run has in the database: hidden steps are left out."""
        step = self._open.get(run_id) if run_id is not None else None
        return step.shown if step is not None else run_id

    def begin(
        self, start: Callable[..., Any], operation: str, serialized: Mapping[str, Any] | None, inputs: Any,
        run_id: UUID, *, metadata: Mapping[str, Any], parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None, name: str | None = None, **_more: Any,
    ) -> None:  # fmt: skip
        """A step begins. A hidden one is not stored."""
        parent, is_hidden = self.shown(parent_run_id), _HIDDEN in (tags or ())
        root = self.root_of(parent_run_id) if parent_run_id is not None else run_id
        self._open[run_id] = _StepPlace(parent_run_id, root, parent if is_hidden else run_id)
        if not is_hidden:
            got = {"name": name or _name_in(serialized), "inputs": shortened(inputs)}
            given = {"conversation_of": root, "invocation_params": got}
            start(operation, [], run_id, parent, tags, metadata, given)

    def finish(self, end: Callable[..., None], run_id: UUID, output: Any) -> None:
        """A step returned. A graph in which a step waits for somebody is interrupted."""
        step = self._open.pop(run_id, None)
        if step is not None and step.shown == run_id:
            text = Mask().json({"output": shortened(output)}, "output")
            end(run_id, RunEnd(INTERRUPTED if step.waits else COMPLETE, now(), output=text))

    def fail(self, end: Callable[..., None], run_id: UUID, error: BaseException) -> None:
        """A step raised. One that waits for somebody is interrupted, and so is what is around it."""
        step = self._open.pop(run_id, None)
        if step is None:
            return
        waits = any(kind.__name__ in _INTERRUPTS for kind in type(error).__mro__)
        if waits and step.parent is not None and (parent := self._open.get(step.parent)) is not None:
            parent.waits = True
        if step.shown != run_id:
            return
        if waits:
            end(run_id, RunEnd(INTERRUPTED, now()))
        else:
            end(run_id, end_of_error(error), error)


def _name_in(serialized: Mapping[str, Any] | None) -> str | None:
    """The name of what runs, as LangChain describes it."""
    if not isinstance(serialized, Mapping):
        return None
    path = serialized.get("id")
    name = serialized.get("name") or (path[-1] if isinstance(path, list) and path else None)
    return name if isinstance(name, str) else None
