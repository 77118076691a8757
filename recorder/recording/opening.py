"""The first opening of the database, and who is told how it went."""

from __future__ import annotations

import logging

from recorder.config import Config
from recorder.core.clock import monotonic_us
from recorder.core.waitable import Limited, Wait
from recorder.errors import RecorderError
from recorder.recording.progress import Progress
from recorder.storage.dialects import TO_BE_TRIED_AGAIN
from recorder.storage.store import Store

log = logging.getLogger("recorder")

#: So often a new recorder tries to open its database before it says that it cannot.
_QUIET_ATTEMPTS = 3


class Opening:
    """Whether the recorder begins: a database that is away is waited for, or refused when `strict`; any other failure
    is refused. `attended` says that whoever constructs the recorder waits; otherwise a refusal is logged."""

    def __init__(self, store: Store, config: Config, progress: Progress, *, attended: bool) -> None:
        self._store = store
        self._config = config
        self._progress = progress
        self._attended = attended
        self._limit_us = monotonic_us() + config.open_timeout * 1e6
        self._wait: Wait[None] = Wait()
        #: Why the recorder did not begin; None when it did, or may.
        self.refusal: str | None = None

    def wait(self) -> Wait[None]:
        """Over when the database is open or the recorder goes on without it, at the latest after `open_timeout`; raises
        what the recorder was refused for."""
        return Limited(self._wait, (self._limit_us - monotonic_us()) / 1e6, self._late)

    @property
    def is_over(self) -> bool:
        """Whether recording goes on, with the database or until it is there."""
        return self._wait.done and self.refusal is None

    def done(self) -> None:
        """The database is open."""
        self._wait.set(None)

    def goes_on(self, error: Exception, attempt: int) -> bool:
        """Whether to try again after this failure."""
        transient = self._store.failure(error) in TO_BE_TRIED_AGAIN
        # Two processes that make the same new file at once: one of them finds it locked for a moment.
        if transient and attempt < _QUIET_ATTEMPTS:
            return True
        if self._wait.done or (transient and not self._config.strict):
            self._progress.failed(error, "opening the database")
            self._wait.set(None)
            return True
        self.refuse(error)
        return False

    def takes_long(self) -> bool:
        """`open_timeout` is over and nothing has come of it; whether the recorder goes on."""
        if self._config.strict:
            self.refuse(self._silence())
            return False
        self._progress.failed(self._silence(), "opening the database")
        self._wait.set(None)
        return True

    def refuse(self, error: BaseException) -> None:
        """The recorder does not begin."""
        self.refusal = self._progress.note(error, "opening the database")
        self._progress.healthy = False
        if not self._attended:
            log.error("The database cannot be opened, and nothing is recorded: %s", self.refusal)
        self._wait.fail(error)

    def end(self, error: BaseException) -> None:
        """The writer ended; where nothing had come of the opening yet, the recorder does not begin."""
        if not self._wait.done:
            self.refusal = self._progress.last_error
        self._wait.fail(error)

    def _late(self) -> None:
        if self._config.strict:
            raise self._silence()

    def _silence(self) -> RecorderError:
        return RecorderError(
            f"The database did not answer within {self._config.open_timeout:g} s; is it there?"
        )
