"""Interrupts recorder's code at each place where Python may run a finalizer or a signal handler."""

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
#: After these instructions Python checks for signals. From 3.12 on the garbage collector runs there too; in older
#: versions it runs where an object is created.
SIGNALS = ("CALL", "RESUME", "JUMP_BACKWARD")
FINALIZERS = (*SIGNALS, "BUILD_")


@cache
def _places(code: CodeType, kinds: tuple[str, ...]) -> frozenset[int]:
    """Return the offsets of the instructions that follow an instruction of one of these kinds."""
    instructions = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    pairs = pairwise(instructions)
    return frozenset(after.offset for before, after in pairs if before.opname.startswith(kinds))


def ctrl_c() -> None:
    """Raise what Python's default handler of SIGINT raises."""
    raise KeyboardInterrupt


def interrupted(
    action: Callable[[], object], place: int, interrupt: Callable[[], object],
    kinds: tuple[str, ...] = FINALIZERS,
) -> bool:  # fmt: skip
    """Run an action and interrupt recorder's code at the place with this number; return whether it was reached.

    An exception that the interrupt raises is raised at that place.
    """
    places = count()
    reached = False

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal reached
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        # Lines are traced as well: without them 3.13.0 does not report the opcodes of the first frame.
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _places(frame.f_code, kinds) and next(places) == place:
            reached = True
            sys.settrace(None)
            interrupt()
        return trace

    before = sys.gettrace()
    # From 3.12 on `settrace` checks once whether a frame wants opcodes. A frame that sets it later is too late.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return reached


#: A call event beyond this offset resumes a frame that was suspended before.
_BEGUN = 4


class Failing:
    """Raises an error in one call of recorder's code, on threads that start inside `failing`."""

    def __init__(self, number: int, error: Exception) -> None:
        self._number = number
        self._error = error
        self._calls = count()
        #: Whether calls are counted; and the name of the function in which the error was raised.
        self.armed = False
        self.where: str | None = None

    def profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Count a call, and raise the error at the chosen one; `sys.setprofile` calls this."""
        if not self.armed or event != "call" or not frame.f_code.co_filename.startswith(_PACKAGE):
            return
        if frame.f_lasti > _BEGUN:
            return  # a suspended coroutine is resumed
        if next(self._calls) == self._number:
            self.armed = False
            self.where = frame.f_code.co_qualname
            raise self._error


@contextmanager
def failing(number: int, error: Exception) -> Iterator[Failing]:
    """Inside, each new thread raises the error once: at the call with this number after `armed` was set."""
    fault = Failing(number, error)
    threading.setprofile(fault.profile)
    try:
        yield fault
    finally:
        threading.setprofile(None)
