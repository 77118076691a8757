"""A response whose closing fails, and an exit at which a handler does not return."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from recorder.core.living import Living
from recorder.runs import open_response, open_streams
from recorder.runs.collected_streams import Collector
from recorder.runs.open_response import AsyncOpenResponse


class CutBody:
    """The body of a response, which cannot be closed."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Fail as a broken connection does."""
        raise OSError("the line is cut")


class CutResponse:
    """An SDK's response and its HTTP response in one."""

    def __init__(self) -> None:
        self.http_response = self
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self.closed = True

    def aiter_bytes(self) -> CutBody:
        """The body."""
        return CutBody()

    async def aclose(self) -> None:
        """Fail as a broken connection does."""
        raise OSError("the line is cut")


def test_the_response_is_closed_though_its_body_cannot_be() -> None:
    """The connection goes back to its pool, and the caller gets the error of the body."""
    response = CutResponse()

    async def leave() -> None:
        async with AsyncOpenResponse(response):
            pass

    with pytest.raises(OSError, match="the line is cut"):
        asyncio.run(leave())
    assert response.closed


def test_a_collected_response_that_cannot_be_closed_is_logged_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Asyncio does not log that the exception was never retrieved."""
    caplog.set_level(logging.DEBUG)
    before = set(open_response._kept)

    async def story() -> None:
        left = AsyncOpenResponse(CutResponse())
        await left.__aenter__()
        left._leave()
        await asyncio.sleep(0)  # the loop begins to close it
        await asyncio.sleep(0)  # this fails
        await asyncio.sleep(0)  # and is reported

    asyncio.run(story())
    gc.collect()
    logged = [(record.name, record.levelname) for record in caplog.records if "line is cut" in record.message]
    assert logged == [("recorder", "DEBUG")]
    assert "never retrieved" not in caplog.text
    assert open_response._kept <= before


def test_responses_are_left_open_at_exit_though_a_handler_does_not_return(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The exit does not wait longer, and raises nothing."""
    returned, left_open = threading.Event(), list[Any]()
    collector = Collector()
    collector.begin()
    collector.put(returned.wait)  # type: ignore[arg-type]
    monkeypatch.setattr(open_streams, "collector", collector)
    monkeypatch.setattr(open_streams, "DRAIN_TIMEOUT", 0.0)
    monkeypatch.setattr(open_streams, "_streams", Living())
    monkeypatch.setattr(open_streams, "_async_runs", Living())
    monkeypatch.setattr(open_streams, "leave_open", lambda: left_open.append(True))
    open_streams._close_all()
    returned.set()
    assert left_open == [True]
    assert "have not returned after 0 s" in caplog.text
