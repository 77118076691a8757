"""A lock for short actions that finalizers and signal handlers may call without a deadlock.

Python runs finalizers and signal handlers between two steps of a thread, even while that thread holds the lock. An
action that they start in that moment is put into a queue and runs when the thread leaves the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Action = Callable[[], object]


class Exclusive:
    """Runs short actions, one at a time. Base class of objects that several threads share.

    A signal handler may raise an exception (Ctrl-C) inside an action. An action therefore makes its calls first and its
    assignments last, so that it changes all or nothing: Python runs signal handlers at calls and in loops, not between
    assignments.
    """

    def __init__(self) -> None:
        # Reentrant: a thread that holds the lock may enter again, and then sees `_inside`.
        self._lock = threading.RLock()
        self._inside = False
        self._pending: deque[Action] = deque()
        self._failed: Action | None = None
        #: Errors of actions that `call_soon` queued; no caller waits for these actions.
        self.errors: deque[Exception] = deque(maxlen=10)

    def call(self, action: Callable[[], T], nested: Callable[[], T] | None = None) -> T:
        """Wait until no other thread runs an action, run this one and return its result.

        On a thread that runs an action already, `nested` runs instead; it changes nothing, but may use `call_soon`.
        """
        with self._lock:
            if self._inside:
                return (nested or action)()
            # No call between this line and `try`, and none in `finally`: a signal handler could run there.
            self._inside = True
            try:
                result = action()
            finally:
                self._inside = False
        if self._pending:
            self.run_pending()
        return result

    def call_soon(self, action: Action) -> None:
        """Queue the action. The next thread that uses the lock runs it; the order of the calls is kept. Takes no lock.

        An action that raises, or that a signal handler interrupts with an exception, runs a second time.
        """
        self._pending.append(action)

    def run_pending(self) -> None:
        """Run the queued actions, unless this thread is inside an action."""
        while self._pending:
            with self._lock:
                if self._inside or not self._pending:
                    return
                self._inside = True
                try:
                    self._pending[0]()
                except Exception as error:  # out of memory, or a bug; the caller did not start this action
                    if self._fails_first(error):
                        return
                finally:
                    self._inside = False
                self._pending.popleft()

    def _fails_first(self, error: Exception) -> bool:
        """Note the error of the first queued action. True if it is the first error of that action."""
        self.errors.append(error)
        again, self._failed = self._failed is self._pending[0], self._pending[0]
        return not again
