"""Which run a response of OpenAI's Responses API began with, for requests that name only the response's id.

It is for recorder's own models in this process.
"""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

#: So many responses are remembered, the newest ones.
_MAX_RESPONSES = 10_000

#: Id of a response -> the run that names its conversation. Each step is one call, so that threads need no lock.
_roots: OrderedDict[str, UUID] = OrderedDict()


def remember_root(response_id: str, root: UUID) -> None:
    """A response belongs to the conversation of this run."""
    _roots[response_id] = root
    while len(_roots) > _MAX_RESPONSES:
        try:
            _roots.popitem(last=False)
        except KeyError:  # another thread has removed the last one
            return


def root_of(response_id: str | None) -> UUID | None:
    """The run that names the conversation of a response; None for a response that no model of this process got."""
    return _roots.get(response_id) if response_id is not None else None
