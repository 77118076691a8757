"""Drives a generator that yields steps and waits for an answer to each of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

StepT = TypeVar("StepT")
ResultT = TypeVar("ResultT")


class Trampoline(Generic[StepT, ResultT]):
    """One run of such a generator: `step(answer)` until it returns None, then `result`.

    The caller waits for each answer in its own way, blocking or on an event loop, so one generator serves both.
    """

    __slots__ = ("_generator", "result")

    #: What the generator returned. There is no such attribute before the end.
    result: ResultT

    def __init__(self, generator: Generator[StepT, Any, ResultT]) -> None:
        self._generator = generator

    def step(self, answer: Any = None) -> StepT | None:
        """Resume the generator with the answer to its last step, and return its next step; None at the end.

        The first call takes no answer. Raises what the generator raises.
        """
        try:
            return self._generator.send(answer)
        except StopIteration as end:
            self.result = end.value
            return None
