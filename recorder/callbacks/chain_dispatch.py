"""Calls the handlers of one run of a chain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from recorder.callbacks.dispatch import CHAIN_EVENTS, events_of, fire
from recorder.callbacks.handler_results import HandlerMethod, Pending


class ChainDispatch:
    """Calls the handlers of one run. Each method returns None, or what to `settle` before the run continues."""

    def __init__(
        self, handlers: Iterable[Any], *, run_id: UUID, parent_run_id: UUID | None, tags: list[str],
        metadata: dict[str, Any],
    ) -> None:  # fmt: skip
        self._fields = {"run_id": run_id, "parent_run_id": parent_run_id, "tags": tags}
        self._metadata = metadata
        self._calls: dict[str, list[HandlerMethod]] = {name: [] for name in CHAIN_EVENTS}
        for handler in handlers:
            for name in events_of(handler, CHAIN_EVENTS):
                self._calls[name].append(HandlerMethod(handler, name, getattr(handler, name)))

    def start(self, serialized: dict[str, Any], inputs: Any, name: str) -> list[Pending] | None:
        """The chain starts with these inputs."""
        fields = {**self._fields, "metadata": self._metadata, "name": name}
        return fire(self._calls["on_chain_start"], serialized, inputs, **fields)

    def end(self, outputs: Any) -> list[Pending] | None:
        """The chain returned."""
        return fire(self._calls["on_chain_end"], outputs, **self._fields)

    def error(self, error: BaseException) -> list[Pending] | None:
        """The chain failed or was cancelled."""
        return fire(self._calls["on_chain_error"], error, **self._fields)
