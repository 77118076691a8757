"""The hooks of chains, for handlers that store them as runs around the runs of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from recorder.recording.steps import OpenSteps
from recorder.storage.operations import CHAIN


class StepHooks:
    """Stores each chain as a run with its inputs and its output. The runs in it have it as their parent."""

    _steps: OpenSteps
    # The methods that store a run, of the handler.
    _start: Callable[..., Any]
    _end: Callable[..., None]

    def on_chain_start(
        self, serialized: dict[str, Any] | None, inputs: Any, *, run_id: UUID,
        metadata: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """A chain begins, or a chain within another one."""
        self._steps.begin(self._start, CHAIN, serialized, inputs, run_id, metadata=metadata or {}, **kwargs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain returned."""
        self._steps.finish(self._end, run_id, outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain failed or was cancelled."""
        self._steps.fail(self._end, run_id, error)
