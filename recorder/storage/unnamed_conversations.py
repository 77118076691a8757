"""What a run brings along if it names no conversation and may continue a stored one: who sent it, and a new id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class HistoryOwner:
    """Who may go on with a conversation by sending its messages again (`continued_conversations`)."""

    #: A user or an API key, as a hash.
    name: str
    #: How long after a reply.
    within: timedelta


@dataclass(slots=True)
class UnnamedConversation:
    """The conversation of runs that name none: a new one, until their messages turn out to continue another one."""

    id: str
