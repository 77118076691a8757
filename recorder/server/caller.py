"""Who sends a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    #: Whose conversations it may read; None for those of all users.
    user_id: str | None = None

    def may_read(self, user_id: str | None) -> bool:
        """Whether it may read the conversations of a user."""
        return self.user_id is None or self.user_id == user_id
