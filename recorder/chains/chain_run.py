"""One run of a chain: reports its start and its end to the handlers. It is the parent of the runs in the chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from recorder.callbacks import Pending
from recorder.callbacks.chain_dispatch import ChainDispatch


@dataclass(frozen=True, slots=True)
class ChainRequest:
    """One call of a chain."""

    #: The name of the chain, or the `run_name` of the call.
    name: str
    #: The argument `serialized` of the handlers' start methods.
    serialized: dict[str, Any]
    #: The inputs as the caller passed them.
    inputs: Any
    handlers: Sequence[Any]
    run_id: UUID
    parent_run_id: UUID | None
    tags: list[str]
    metadata: dict[str, Any]


class ChainRun:
    """One run of a chain. Its driver waits for what is in `pending`."""

    #: A chain always begins: its inputs are read after its start.
    error: Exception | None = None

    def __init__(self, request: ChainRequest) -> None:
        self.request = request
        self.pending: list[Pending] | None = None
        #: What the chain returned.
        self.output: Any = None
        self._ended = False
        self._dispatch = ChainDispatch(
            request.handlers, run_id=request.run_id, parent_run_id=request.parent_run_id, tags=request.tags,
            metadata=request.metadata,
        )  # fmt: skip

    def start(self) -> None:
        """Report the start."""
        request = self.request
        self._add_pending(self._dispatch.start(request.serialized, request.inputs, request.name))

    def finish(self) -> None:
        """Report the end, with `output`."""
        self._add_pending(self._dispatch.end(self.output))
        self._ended = True

    def fail(self, error: BaseException) -> None:
        """Report the error. Does nothing if the end was reported before."""
        if not self._ended:
            self._ended = True
            self._add_pending(self._dispatch.error(error))

    def _add_pending(self, pending: list[Pending] | None) -> None:
        if pending:
            self.pending = [*(self.pending or ()), *pending]


def serialized(chain: Any, name: str) -> Mapping[str, Any]:
    """The argument `serialized` of LangChain's handlers: the class and the name of the chain."""
    home = type(chain).__module__.split(".")
    return {"lc": 1, "type": "not_implemented", "id": [*home, type(chain).__name__], "name": name}
