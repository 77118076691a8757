"""What the writer has done, and how the database answered last: read from any thread, and told in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from recorder.core.clock import monotonic_us, now
from recorder.storage.dialects import error_text

log = logging.getLogger("recorder")

#: A fresh failure is logged at once, one that goes on every so many seconds.
LOG_EVERY = 30.0


@dataclass(slots=True)
class Progress:
    """Counts since the writer began, and the state of the database."""

    committed: int = 0
    quarantined: int = 0
    #: Tokens and added messages that were still waiting when the time to close ran out.
    lost: int = 0
    lost_messages: int = 0
    #: Messages that were added without a run and are stored.
    messages: int = 0
    commits: int = 0
    #: The last error's text and when it was; None when there was none.
    last_error: str | None = None
    last_error_at: datetime | None = None
    #: Whether the last attempt went well.
    healthy: bool = True
    _logged_at_us: float = field(default=-inf, repr=False)

    @property
    def accounted(self) -> int:
        """Tokens that something has become of."""
        return self.committed + self.quarantined + self.lost

    def note(self, error: BaseException, doing: str) -> str:
        """Remember the error; its text."""
        words = error_text(error)
        self.last_error, self.last_error_at = f"{doing}: {words}", now()
        return words

    def failed(self, error: BaseException, doing: str) -> None:
        """The database did not do it, and it will be tried again."""
        words = self.note(error, doing)
        if self.healthy or monotonic_us() - self._logged_at_us > LOG_EVERY * 1e6:
            self._logged_at_us = monotonic_us()
            log.error("Recording goes on in memory, the database does not answer: %s: %s", doing, words)
        self.healthy = False

    def broke(self, error: BaseException) -> None:
        """Storing a batch failed, and not because of the database."""
        self.note(error, "storing a batch")
        if self.healthy or monotonic_us() - self._logged_at_us > LOG_EVERY * 1e6:
            self._logged_at_us = monotonic_us()
            log.error(
                "A batch could not be stored, each part of it is tried again by itself, and recording goes on; please "
                "report this unless memory ran out",
                exc_info=error,
            )
        self.healthy = False

    def died(self, error: BaseException) -> None:
        """The writer ended though nobody closed it."""
        self.note(error, "the writer ended")
        log.error("The recorder's writer ended; nothing more is stored", exc_info=error)
        self.healthy = False

    def went_well(self) -> None:
        """The database did what it was asked."""
        if not self.healthy:
            log.warning("The database takes recordings again")
        self.healthy = True


def missing(tokens: int, messages: int) -> str:
    """How many were not stored, up to the verb."""
    return f"{tokens} tokens were" if not messages else f"{tokens} tokens and {messages} added messages were"
