"""Decides whether the rows of a batch or the state of the database cause its failures (docs/decisions/0027)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf

from recorder.core.deadline import seconds
from recorder.recording.split_batch import rows_in
from recorder.storage.batch import Part
from recorder.storage.failures import Failure, driver_error
from recorder.storage.trial_rows import size_of_rows

#: Failures that the rows or the database may cause. After so many in a row a trial shows which of them it is.
_MAYBE_POISON = frozenset(("refused", "fatal"))
_REFUSALS = 2
#: A part that fails like an outage is left out when so many trials in a row went well between its failures, and the
#: first of them was so many seconds ago. Somebody may have locked just its rows, for example for a long UPDATE.
_TRIALS = 3
SUSPECT_AFTER = 300.0
#: So many seconds are enough for an error that rows caused in the last minutes, given in seconds, too.
SUSPECT_AGAIN_AFTER = 30.0
_BLAMED_FOR = 600.0


class FailureCause:
    """Counts the failures of one batch."""

    def __init__(
        self,
        batch: Sequence[Part],
        stores_other_rows: Callable[[int], Awaitable[bool]],
        blamed: dict[str, float],
    ) -> None:
        """`stores_other_rows` says whether the database accepts other rows of so many bytes now. `blamed` has the names
        of the errors that look like an outage and were caused by rows before, each with the time of the last one."""
        self._batch = batch
        self._stores_other_rows = stores_other_rows
        self._blamed = blamed
        self._refusals = 0
        self._outages = 0
        self._trials = 0
        self._first_trial = 0.0

    async def is_rows(self, failure: Failure, error: Exception, *, had_longest: bool) -> bool:
        """Whether the content of these rows causes the error, and not the state of the database. `had_longest` says
        whether the batch had the longest time that a statement gets."""
        self._refusals = self._refusals + 1 if failure in _MAYBE_POISON else 0
        if failure == "poison":
            return len(self._batch) > 1 or await self._stores_other_rows(0)
        if failure in _MAYBE_POISON:
            return self._refusals >= _REFUSALS and await self._stores_other_rows(0)
        if failure == "doubtful":
            # Rows of the same size, because a full disk may have space for small ones.
            return await self._is_rows_after_all(error, size_of_rows(self._batch))
        if failure == "slow" and self._has_one_row():
            return await self._is_rows_after_all(error, 0, may_be_proven=had_longest)
        return False

    def _has_one_row(self) -> bool:
        return len(self._batch) == 1 and rows_in(self._batch[0]) < 2

    async def _is_rows_after_all(self, error: Exception, size: int, *, may_be_proven: bool = True) -> bool:
        self._outages += 1
        if self._outages < _REFUSALS or not await self._goes_on_beside(size):
            return False
        return may_be_proven and (len(self._batch) > 1 or self._is_proven(error))

    async def _goes_on_beside(self, size: int) -> bool:
        """Make a trial; whether the database stores other rows of this size."""
        if not await self._stores_other_rows(size):
            self._trials = 0
            return False
        if not self._trials:
            self._first_trial = seconds()
        self._trials += 1
        return True

    def _is_proven(self, error: Exception) -> bool:
        name, now = type(driver_error(error)).__name__, seconds()
        was_blamed = now - self._blamed.get(name, -inf) < _BLAMED_FOR
        needed = min(SUSPECT_AFTER, SUSPECT_AGAIN_AFTER) if was_blamed else SUSPECT_AFTER
        if self._trials < _TRIALS or now - self._first_trial < needed:
            return False
        self._blamed[name] = now
        return True
