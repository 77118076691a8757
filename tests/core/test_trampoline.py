"""A trampoline gives the steps of a generator one by one, then what it returned."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from recorder.core.trampoline import Trampoline


def sum_of_two() -> Generator[str, int, int]:
    """Asks for two numbers."""
    return (yield "first") + (yield "second")


def nothing() -> Generator[str, int, None]:
    """Ends before its first step."""
    yield from ()


def test_answers_go_in_and_the_result_comes_out() -> None:
    """The first step takes no answer; after the last one there is the result."""
    steps = Trampoline(sum_of_two())
    assert steps.step() == "first"
    assert steps.step(2) == "second"
    assert steps.step(3) is None
    assert steps.result == 5


def test_a_generator_without_steps_ends_at_once() -> None:
    """Its result is there after the first call."""
    steps = Trampoline(nothing())
    assert steps.step() is None
    assert steps.result is None


def test_there_is_no_result_before_the_end() -> None:
    """A driver that stops too early finds out."""
    steps = Trampoline(sum_of_two())
    steps.step()
    with pytest.raises(AttributeError):
        _ = steps.result


def test_an_error_of_the_generator_is_raised() -> None:
    """It is no end: the driver gets the error itself."""
    steps = Trampoline(sum_of_two())
    steps.step()
    with pytest.raises(TypeError):
        steps.step(1), steps.step("two")
