"""A trampoline returns the steps of a generator one by one, then its result."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from recorder.core.trampoline import Trampoline


def sum_of_two() -> Generator[str, int, int]:
    """A generator that needs two numbers."""
    return (yield "first") + (yield "second")


def nothing() -> Generator[str, int, None]:
    """A generator that ends before its first step."""
    yield from ()


def test_step_passes_each_answer_to_the_generator() -> None:
    """The first step takes no answer, and after the last one the result is there."""
    steps = Trampoline(sum_of_two())
    assert steps.step() == "first"
    assert steps.step(2) == "second"
    assert steps.step(3) is None
    assert steps.result == 5


def test_a_generator_without_steps_ends_at_once() -> None:
    """The result is there after the first call."""
    steps = Trampoline(nothing())
    assert steps.step() is None
    assert steps.result is None


def test_there_is_no_result_before_the_end() -> None:
    """Reading it too early raises an AttributeError."""
    steps = Trampoline(sum_of_two())
    steps.step()
    with pytest.raises(AttributeError):
        _ = steps.result


def test_an_error_of_the_generator_is_raised() -> None:
    """`step` raises it to its caller."""
    steps = Trampoline(sum_of_two())
    steps.step()
    with pytest.raises(TypeError):
        steps.step(1), steps.step("two")
