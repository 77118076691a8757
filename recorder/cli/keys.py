"""Single keys of a terminal, and the clock that they stop."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

PAUSE, STEP, QUIT = " ", ".", "q"
#: A due time this near (seconds) is not waited for: sleeping takes longer.
_NOW = 0.00005
#: The longest single wait (seconds); a stranger's recording may want one that no clock can count.
_LONGEST = 3600.0
#: What a shell reports for a program that SIGTERM ended.
_TERMINATED = 143


class Quit(Exception):
    """Somebody has pressed the key that ends it."""


class Keys:
    """Keys as they are pressed, inside `with`, where somebody sits at a terminal; else none ever.

    The terminal is given back as it was, whatever ends it: Ctrl-C, an error, SIGTERM.
    """

    def __init__(self) -> None:
        self.there = sys.stdin.isatty() and sys.stdout.isatty()
        self._fd = sys.stdin.fileno() if self.there else -1
        #: What ends a wait; read, write.
        self._wake: tuple[int, int] | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
            self._undo.callback(os.close, end)
        if threading.current_thread() is threading.main_thread():
            # A Ctrl-C that comes just before a wait would be heard after it.
            self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(self._wake[1]))
        if self.there:
            self._take_the_terminal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake = None
        self._undo.close()

    def _take_the_terminal(self) -> None:
        import termios
        import tty

        before = termios.tcgetattr(self._fd)
        on_term = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
        self._undo.callback(signal.signal, signal.SIGTERM, on_term)
        self._undo.callback(termios.tcsetattr, self._fd, termios.TCSADRAIN, before)
        tty.setcbreak(self._fd)

    def pressed(self, timeout: float | None) -> str:
        """The next key, or nothing: after `timeout` seconds, or when `wake` was called."""
        if self._wake is None:
            raise RuntimeError("keys are heard inside `with`")
        heard = [self._wake[0], *([self._fd] if self.there else [])]
        ready, _, _ = select.select(heard, [], [], timeout)
        if self._wake[0] in ready:
            os.read(self._wake[0], 4096)
        if self._fd not in ready:
            return ""
        found = os.read(self._fd, 1).decode("ascii", "replace")
        if not found:  # the terminal is gone
            raise Quit
        return found

    def wake(self, *_of_a_future: object) -> None:
        """End a `pressed` that waits; callable from any thread."""
        wake = self._wake
        if wake is not None:
            try:
                os.write(wake[1], b".")
            except OSError:  # closed in this moment, or full: then it wakes all the same
                pass


class Clock:
    """Time that stands still while it is paused, in seconds; who waits on it hears the keys."""

    def __init__(self, keys: Keys, time: Callable[[], float] = time.perf_counter) -> None:
        self._keys = keys
        self._time = time
        #: How long it stood still until now, and since when it does: its own time there.
        self._behind = 0.0
        self._stopped: float | None = None

    def now(self) -> float:
        """What time it is."""
        return self._time() - self._behind if self._stopped is None else self._stopped

    def until(self, due: float) -> None:
        """Wait until then, or for the key that steps. Raises `Quit`."""
        while True:
            left = due - self.now()
            if self._stopped is None and left <= _NOW:
                return
            sys.stdout.flush()
            key = self._keys.pressed(min(left, _LONGEST) if self._stopped is None else None)
            if self._stopped is not None and key == STEP:
                self._stopped = max(self._stopped, due)
                return
            self._obey(key)

    def listen(self) -> None:
        """Hear the keys where nothing is waited for. Raises `Quit`."""
        if self._keys.there:
            self._obey(self._keys.pressed(0))
            if self._stopped is not None:
                self.until(self._stopped)

    def result(self, future: Future[T]) -> T:
        """What a future has in the end, the keys heard meanwhile. Raises `Quit`."""
        future.add_done_callback(self._keys.wake)
        while not future.done():
            sys.stdout.flush()
            self._obey(self._keys.pressed(None))
        return future.result()

    def _obey(self, key: str) -> None:
        if key in (QUIT, QUIT.upper()):
            raise Quit
        if key != PAUSE:
            return
        if self._stopped is None:
            self._stopped = self.now()
        else:  # nothing is skipped: it goes on where it stood, or where the steps have led
            self._behind, self._stopped = self._time() - self._stopped, None
