"""While one item is executed, the next one is computed; never are two of them executed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from recorder.core.overlap import overlapped


class Driver:
    """A database whose statements end when they are allowed to, with a log of what happened."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.allowed = asyncio.Event()
        self.tasks: set[object] = set()

    async def execute(self, item: str) -> str:
        """One statement."""
        self.log.append(f"begin {item}")
        self.tasks.add(asyncio.current_task())
        try:
            await self.allowed.wait()
        finally:
            self.log.append(f"end {item}")
        return item.upper()

    def items(self, *names: str) -> Iterator[str | None]:
        """Items that are computed in two steps. When the last one is there, statements may end."""
        for name in names:
            yield None
            self.log.append(f"compute {name}")
            if name == names[-1]:
                self.allowed.set()
            yield None
            if name == "broken":
                raise ValueError(name)
            yield name


def test_the_next_item_is_computed_while_one_is_executed() -> None:
    """The results come in the order of the items."""

    async def story() -> tuple[list[str], list[str]]:
        driver = Driver()
        return await overlapped("a", driver.items("b"), driver.execute), driver.log

    results, log = asyncio.run(story())
    assert results == ["A", "B"]
    assert log == ["begin a", "compute b", "end a", "begin b", "end b"]


def test_an_only_item_is_executed_by_the_caller() -> None:
    """A task would be one more turn of the event loop."""

    async def story() -> bool:
        driver = Driver()
        driver.allowed.set()
        assert await overlapped("a", driver.items(), driver.execute) == ["A"]
        return driver.tasks == {asyncio.current_task()}

    assert asyncio.run(story())


def test_an_error_in_computing_is_raised_when_nothing_is_executed_any_more() -> None:
    """The connection can be used again."""

    async def story() -> list[str]:
        driver = Driver()
        with pytest.raises(ValueError, match="broken"):
            await overlapped("a", driver.items("broken"), driver.execute)
        return driver.log

    assert asyncio.run(story()) == ["begin a", "compute broken", "end a"]


def test_an_error_in_executing_is_raised_and_nothing_more_is_executed() -> None:
    """What was computed meanwhile is thrown away."""

    async def story() -> list[str]:
        driver = Driver()

        async def execute(item: str) -> str:
            await driver.execute(item)
            raise OSError(item)

        with pytest.raises(OSError, match="a"):
            await overlapped("a", driver.items("b"), execute)
        return driver.log

    assert asyncio.run(story()) == ["begin a", "compute b", "end a"]


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_cancellation_ends_what_is_executed(steps: int) -> None:
    """At each await."""

    async def story() -> list[str]:
        driver = Driver()
        endless = (None for _ in iter(int, 1)) if steps > 3 else driver.items("b", "c")
        driver.allowed.set = lambda: None  # type: ignore[method-assign]
        task = asyncio.ensure_future(overlapped("a", endless, driver.execute))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return driver.log

    log = asyncio.run(story())
    assert log.count("begin a") == log.count("end a")
    assert "begin b" not in log
