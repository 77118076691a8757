"""Interrupts our code at each place where Python may run a finalizer or a signal handler."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
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
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in _places(frame.f_code, kinds) and next(places) == place:
            reached = True
            sys.settrace(None)
            interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return reached
