"""One thread at a time, and no thread ever waits for itself.

Python runs finalizers (the garbage collector's too) and signal handlers between two steps of whatever a thread does,
also while that thread holds the lock. What they ask for then is put into a queue, and runs when the thread leaves.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Action = Callable[[], object]


class Exclusive:
    """Runs short actions, one at a time. The base of what several threads share.

    An action is written so that an exception which a signal handler raises in it (Ctrl-C) leaves nothing half done:
    first it calls what it needs, then it assigns. Python handles signals at calls and loops, not at assignments.
    """

    def __init__(self) -> None:
        # Reentrant, so that a thread which is inside already gets as far as seeing that.
        self._lock = threading.RLock()
        self._inside = False
        self._later: deque[Action] = deque()
        self._failed: Action | None = None
        #: Errors of actions that ran later, for which nobody waited.
        self.errors: deque[Exception] = deque(maxlen=10)

    def now(self, action: Callable[[], T], nested: Callable[[], T] | None = None) -> T:
        """Wait until no other thread is inside, run the action and return its result.

        On a thread that is inside already `nested` runs instead: it changes nothing but what `soon` queues.
        """
        with self._lock:
            if self._inside:
                return (nested or action)()
            # No call between here and `try`, and none in `finally`: there a signal handler could come between.
            self._inside = True
            try:
                result = action()
            finally:
                self._inside = False
        if self._later:
            self.catch_up()
        return result

    def soon(self, action: Action) -> None:
        """Run the action when some thread is inside next, in the order of these calls. Takes no lock.

        An action that fails, or is interrupted by an exception of a signal handler, runs a second time.
        """
        self._later.append(action)

    def catch_up(self) -> None:
        """Run what was queued, unless this thread is inside."""
        while self._later:
            with self._lock:
                if self._inside or not self._later:
                    return
                self._inside = True
                try:
                    self._later[0]()
                except (
                    Exception
                ) as error:  # no memory, or a bug; not to be raised where somebody puts a token
                    if self._fails_first(error):
                        return
                finally:
                    self._inside = False
                self._later.popleft()

    def _fails_first(self, error: Exception) -> bool:
        """Whether what is first in the queue did not fail before."""
        self.errors.append(error)
        again, self._failed = self._failed is self._later[0], self._later[0]
        return not again
