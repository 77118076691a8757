"""The first opening of the database, and whether the recorder begins."""

from __future__ import annotations

import logging

from recorder.config import Config
from recorder.core.clock import monotonic_us
from recorder.core.waitable import Limited, Wait
from recorder.errors import RecorderError, StoreError
from recorder.recording.progress import Progress
from recorder.storage.failures import RETRIABLE
from recorder.storage.store_interface import Store

log = logging.getLogger("recorder")

#: So many failed attempts to open the database are not reported.
_QUIET_ATTEMPTS = 3


class Opening:
    """A database that is not reachable is tried again, or with `strict` refused; any other failure refuses it.

    A refused recorder records nothing. With `caller_waits` the caller of the constructor waits and gets the error;
    otherwise the error is logged.
    """

    def __init__(self, store: Store, config: Config, progress: Progress, *, caller_waits: bool) -> None:
        self._store = store
        self._config = config
        self._progress = progress
        self._caller_waits = caller_waits
        self.restart_time()
        self._wait: Wait[None] = Wait()
        #: The error text of a refused recorder; None otherwise.
        self.refusal: str | None = None

    def restart_time(self, later: float = 0.0) -> None:
        """Let `open_timeout` count from now, or from so many seconds later."""
        self._limit_us = monotonic_us() + (self._config.open_timeout + later) * 1e6

    def wait(self) -> Wait[None]:
        """Ends when the database is open, when recording begins without it, or after `open_timeout`. Raises the error
        of a refused recorder."""
        return Limited(self._wait, (self._limit_us - monotonic_us()) / 1e6, self._on_timeout)

    @property
    def has_begun(self) -> bool:
        """Whether recording has begun, with the database or without it for now."""
        return self._wait.done and self.refusal is None

    def succeed(self) -> None:
        """The database is open."""
        self._wait.set(None)

    def should_retry(self, error: Exception, attempt: int) -> bool:
        """Whether to try again after this failure; if not, the recorder is refused."""
        transient = self._store.failure(error) in RETRIABLE
        # When two processes create the same file at once, one of them finds it locked for a moment.
        if transient and attempt < _QUIET_ATTEMPTS:
            return True
        if self._wait.done or (transient and not self._config.strict):
            self._progress.database_failed(error, "opening the database")
            self._wait.set(None)
            return True
        self._refuse(error)
        return False

    def time_out(self) -> bool:
        """`open_timeout` is over and the database is not open. Returns whether recording begins without it."""
        if self._config.strict:
            self._refuse(self._no_answer())
            return False
        self._progress.database_failed(self._no_answer(), "opening the database")
        self._wait.set(None)
        return True

    def writer_ended(self, error: BaseException) -> None:
        """Refuse the recorder if the writer ended before the opening did."""
        if not self._wait.done:
            self.refusal = self._progress.last_error
        self._wait.fail(error)

    def end_as(self, parents: Opening) -> None:
        """In a forked child of a closed recorder: nothing is opened any more, and a refusal is repeated."""
        self.refusal = parents.refusal
        if self.refusal is None:
            self._wait.set(None)
        else:
            self._wait.fail(StoreError(f"The database could not be opened: {self.refusal}"))

    def _refuse(self, error: BaseException) -> None:
        self.refusal = self._progress.note(error, "opening the database")
        self._progress.healthy = False
        if not self._caller_waits:
            log.error("The database cannot be opened, and nothing is recorded: %s", self.refusal)
        self._wait.fail(error)

    def _on_timeout(self) -> None:
        if self._config.strict:
            raise self._no_answer()

    def _no_answer(self) -> RecorderError:
        return RecorderError(
            f"The database did not answer within {self._config.open_timeout:g} s; is it there?"
        )
