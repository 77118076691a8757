"""What the writer has done, and how the database answered last. Any thread may read it; changes are logged."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from recorder.core.clock import monotonic_us, now
from recorder.storage.failures import error_text

log = logging.getLogger("recorder")

#: The first failure is logged at once; while failures continue, one is logged each time this many seconds have passed.
LOG_EVERY = 30.0


@dataclass(slots=True)
class Progress:
    """Counts since the writer began, and the state of the database."""

    #: Tokens that are stored; tokens that never can be stored.
    committed: int = 0
    quarantined: int = 0
    #: Tokens, and added messages and annotations, that were not stored before the time to close ran out.
    lost: int = 0
    lost_messages: int = 0
    #: Messages, annotations and details of conversations that were added without a run and are stored.
    messages: int = 0
    commits: int = 0
    #: Runs that are stored with an estimated usage.
    estimated: int = 0
    #: The last error's text and its time; None if there was none.
    last_error: str | None = None
    last_error_at: datetime | None = None
    #: Whether the last attempt succeeded.
    healthy: bool = True
    _logged_at_us: float = field(default=-inf, repr=False)

    @property
    def settled_tokens(self) -> int:
        """Tokens that are stored, quarantined or lost."""
        return self.committed + self.quarantined + self.lost

    def note(self, error: BaseException, action: str) -> str:
        """Set the last error. Returns its text."""
        text = error_text(error)
        self.last_error, self.last_error_at = f"{action}: {text}", now()
        return text

    def database_failed(self, error: BaseException, action: str) -> None:
        """The database failed, and the action will be tried again."""
        text = self.note(error, action)
        if self._should_log():
            log.error(
                "Recording continues in memory, because the database does not answer: %s: %s", action, text
            )
        self.healthy = False

    def batch_failed(self, error: BaseException) -> None:
        """Storing a batch failed for a reason other than the database."""
        self.note(error, "storing a batch")
        if self._should_log():
            log.error(
                "A batch could not be stored. Each part of it is tried again by itself, and recording goes on. Please "
                "report this unless memory ran out",
                exc_info=error,
            )
        self.healthy = False

    def writer_died(self, error: BaseException) -> None:
        """The writer ended though the recorder was not closed."""
        self.note(error, "the writer ended")
        log.error("The recorder's writer ended; nothing more is stored", exc_info=error)
        self.healthy = False

    def database_answered(self) -> None:
        """The database did what it was asked to do."""
        if not self.healthy:
            log.warning("The database works again, and recording goes on")
        self.healthy = True

    def _should_log(self) -> bool:
        if not self.healthy and monotonic_us() - self._logged_at_us <= LOG_EVERY * 1e6:
            return False
        self._logged_at_us = monotonic_us()
        return True


def describe_loss(tokens: int, messages: int) -> str:
    """The subject and verb of a sentence about what was not stored: "3 tokens were"."""
    return (
        f"{tokens} tokens were"
        if not messages
        else f"{tokens} tokens and {messages} added messages or annotations were"
    )
