"""Interrupts our code at each place where Python may run a finalizer or a signal handler."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import recorder

_PACKAGE = str(Path(recorder.__file__).parent)
#: After these instructions Python looks for signals; from 3.12 on the collector runs there too. Before, it runs where
#: an object is made.
SIGNALS = ("CALL", "RESUME", "JUMP_BACKWARD")
FINALIZERS = (*SIGNALS, "BUILD_")


@cache
def _places(code: CodeType, kinds: tuple[str, ...]) -> frozenset[int]:
    """Offsets of the instructions that come after one of these kinds."""
    instructions = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    pairs = pairwise(instructions)
    return frozenset(after.offset for before, after in pairs if before.opname.startswith(kinds))


def ctrl_c() -> None:
    """What Python's handler of SIGINT does."""
    raise KeyboardInterrupt


def interrupted(
    action: Callable[[], object], place: int, interrupt: Callable[[], object],
    kinds: tuple[str, ...] = FINALIZERS,
) -> bool:  # fmt: skip
    """Run an action and interrupt recorder's code in it at the place with this number; whether there was one.

    What the interrupt raises is raised there.
    """
    places = count()
    reached = False

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal reached
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        # Lines are traced as well: without them 3.13.0 leaves out the opcodes of the first frame.
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _places(frame.f_code, kinds) and next(places) == place:
            reached = True
            sys.settrace(None)
            interrupt()
        return trace

    before = sys.gettrace()
    # From 3.12 on `settrace` looks whether a frame wants opcodes; a frame that says so later is too late, once.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return reached


#: Beyond this offset a frame has begun before.
_BEGUN = 4


class Failing:
    """An error that is raised by one of the calls of our code, on the threads that begin inside of `failing`."""

    def __init__(self, number: int, error: Exception) -> None:
        self._number = number
        self._error = error
        self._calls = count()
        #: Whether calls are counted, and the function that raised.
        self.armed = False
        self.where: str | None = None

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """What `sys.setprofile` calls."""
        if not self.armed or event != "call" or not frame.f_code.co_filename.startswith(_PACKAGE):
            return
        if frame.f_lasti > _BEGUN:
            return  # a coroutine goes on
        if next(self._calls) == self._number:
            self.armed = False
            self.where = frame.f_code.co_qualname
            raise self._error


@contextmanager
def failing(number: int, error: Exception) -> Iterator[Failing]:
    """Inside, threads begin that fail once, at the call with this number after `armed` was set."""
    fault = Failing(number, error)
    threading.setprofile(fault.profile)
    try:
        yield fault
    finally:
        threading.setprofile(None)
