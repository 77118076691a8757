"""Single key presses in a terminal, and a clock that they pause."""

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
from typing import Any, Self, TypeVar

T = TypeVar("T")

PAUSE, STEP, QUIT = " ", ".", "q"
#: A shorter wait (seconds) is skipped: the system call takes longer.
_NOW = 0.00005
#: The longest single wait (seconds); a time in a file from somebody else may be too large for `select`.
_LONGEST = 3600.0
#: The exit code of a program that SIGTERM ended, as shells report it.
_TERMINATED = 143


class Quit(Exception):
    """The user pressed the key that quits."""


def _stop() -> None:
    """Stop this process; returns when it is continued. The signal goes to this thread, so that it stops right here."""
    signal.raise_signal(signal.SIGTSTP)


class Keys:
    """Reads key presses inside a with-block. Without a terminal there are none.

    The terminal's mode is restored at the end, also after Ctrl-C, an error or SIGTERM. Ctrl-Z restores it until `fg`.
    """

    def __init__(
        self, time: Callable[[], float] = time.perf_counter, stop: Callable[[], None] = _stop
    ) -> None:
        self._time = time
        self._stop = stop
        #: How long the process was stopped by Ctrl-Z, until `fg` continued it (seconds).
        self.stopped = 0.0
        #: The terminal's mode outside of the with-block.
        self._mode: list[Any] = []
        self.has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._fd = sys.stdin.fileno() if self.has_terminal else -1
        #: A pipe (read end, write end) that ends a wait in `pressed`.
        self._wake: tuple[int, int] | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
            self._undo.callback(os.close, end)
        if threading.current_thread() is threading.main_thread():
            # Python handles a signal after `select` returns; the wakeup fd makes it return if Ctrl-C came just before.
            self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(self._wake[1]))
            self._count_stops()
        if self.has_terminal:
            self._set_terminal_mode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake = None
        self._undo.close()

    def _count_stops(self) -> None:
        before = signal.getsignal(signal.SIGTSTP)
        if before is not signal.SIG_IGN:  # a shell without job control ignores Ctrl-Z
            signal.signal(signal.SIGTSTP, self._stop_and_continue)
            self._undo.callback(signal.signal, signal.SIGTSTP, before)

    def _stop_and_continue(self, *_signal: object) -> None:
        """Stop the process as Ctrl-Z does without this handler; returns when it is continued."""
        began = self._time()
        if self.has_terminal:
            self._restore_mode()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._stop()
        signal.signal(signal.SIGTSTP, self._stop_and_continue)
        if self.has_terminal:
            # This waits until the process is in the foreground. Keys that were pressed since `fg` are not lost.
            self._set_mode(discard_keys=False)
        self.stopped += self._time() - began

    def _set_terminal_mode(self) -> None:
        on_term = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
        self._undo.callback(signal.signal, signal.SIGTERM, on_term)
        self._set_mode()
        self._undo.callback(self._restore_mode)

    def _set_mode(self, *, discard_keys: bool = True) -> None:
        """Deliver each key at once, and do not show it."""
        import termios
        import tty

        self._mode = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSAFLUSH if discard_keys else termios.TCSADRAIN)

    def _restore_mode(self) -> None:
        import termios

        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._mode)

    def pressed(self, timeout: float | None) -> str:
        """The next key; "" after `timeout` seconds or a call of `wake`. Raises `Quit` when the terminal is closed."""
        if self._wake is None:
            raise RuntimeError("Keys is not open; use it in a with-block.")
        sources = [self._wake[0], *([self._fd] if self.has_terminal else [])]
        ready, _, _ = select.select(sources, [], [], timeout)
        if self._wake[0] in ready:
            os.read(self._wake[0], 4096)
        if self._fd not in ready:
            return ""
        found = os.read(self._fd, 1).decode("ascii", "replace")
        if not found:  # the terminal was closed
            raise Quit
        return found

    def wake(self, *_of_a_future: object) -> None:
        """End a wait in `pressed`. Any thread may call this."""
        wake = self._wake
        if wake is not None:
            try:
                os.write(wake[1], b".")
            except OSError:  # the pipe is closed, or full and then `select` returns anyway
                pass


class Clock:
    """A clock in seconds that stands still while it is paused or the process is stopped. Its waits handle the keys."""

    def __init__(self, keys: Keys, time: Callable[[], float] = time.perf_counter) -> None:
        self._keys = keys
        self._time = time
        #: The sum of all pauses so far; and this clock's time at which it is paused, None while it runs.
        self._behind = 0.0
        self._paused_at: float | None = None

    def now(self) -> float:
        """The time of this clock, without the pauses."""
        return self._running() - self._behind if self._paused_at is None else self._paused_at

    def _running(self) -> float:
        """The time without that in which the process was stopped."""
        return self._time() - self._keys.stopped

    def until(self, due: float) -> None:
        """Wait until `due`, or while paused for the key that steps. Raises `Quit`."""
        while True:
            left = due - self.now()
            if self._paused_at is None and left <= _NOW:
                return
            sys.stdout.flush()
            key = self._keys.pressed(min(left, _LONGEST) if self._paused_at is None else None)
            if self._paused_at is not None and key == STEP:
                self._paused_at = max(self._paused_at, due)
                return
            self._handle(key)

    def poll(self) -> None:
        """Handle a key that was pressed, without waiting for one; if it pauses, wait for its end. Raises `Quit`."""
        if self._keys.has_terminal:
            self._handle(self._keys.pressed(0))
            if self._paused_at is not None:
                self.until(self._paused_at)

    def result(self, future: Future[T]) -> T:
        """Wait for the result of a future, and handle the keys meanwhile. Raises `Quit`."""
        future.add_done_callback(self._keys.wake)
        while not future.done():
            sys.stdout.flush()
            self._handle(self._keys.pressed(None))
        return future.result()

    def _handle(self, key: str) -> None:
        if key in (QUIT, QUIT.upper()):
            raise Quit
        if key != PAUSE:
            return
        if self._paused_at is None:
            self._paused_at = self.now()
        else:  # continue from the time of the pause, or of the last step, so that no token is skipped
            self._behind, self._paused_at = self._running() - self._paused_at, None
