"""Which conversation a response of OpenAI's Responses API belongs to: a later request names only the response's id."""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

#: So many responses are remembered, the newest ones.
_MAX_RESPONSES = 10_000

#: Id of a response -> the first run of its conversation. Each step is one call, so that threads need no lock.
_first_runs: OrderedDict[str, UUID] = OrderedDict()


def remember(response_id: str, first_run: UUID) -> None:
    """A response belongs to the conversation of this run."""
    _first_runs[response_id] = first_run
    while len(_first_runs) > _MAX_RESPONSES:
        try:
            _first_runs.popitem(last=False)
        except KeyError:  # another thread has removed the last one
            return


def first_run_of(response_id: str | None) -> UUID | None:
    """The first run of the conversation that a response of this process belongs to; None for others."""
    return _first_runs.get(response_id) if response_id is not None else None
