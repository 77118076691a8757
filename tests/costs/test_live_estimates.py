"""Silent runs of a model whose vocabulary is on this machine are counted after their commit, off every event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import tiktoken
from tiktoken import registry

from recorder import ChatHistoryCallback
from recorder.core.waitable import Wait
from recorder.costs import live_estimates, usage_estimate
from recorder.errors import StoreError
from recorder.models import ChatOpenAI
from recorder.storage.batch import Part
from recorder.storage.rows import RunStart
from recorder.testing import LoopbackProvider, MemoryStore
from tests.oracle import record as recorded
from tests.oracle import sql

USAGE = "SELECT usage_source, input_tokens, output_tokens, total_tokens FROM runs ORDER BY started_at"


@pytest.fixture(autouse=True)
def _vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary in which each byte is a token, in place of the one of the newer OpenAI models."""
    ranks = {bytes([number]): number for number in range(256)}
    bytewise = tiktoken.Encoding("o200k_base", pat_str=".|\\n", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setitem(registry.ENCODINGS, "o200k_base", bytewise)


def record(history: ChatHistoryCallback, reply: str = "An answer") -> None:
    """Record a silent run of a model whose vocabulary is here."""
    recorded(history, reply=reply, metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o"})


def test_tokens_are_counted_with_the_vocabulary(database: str) -> None:
    """Not by the rule of thumb: here each byte is a token."""
    with ChatHistoryCallback(database) as history:
        record(history, reply="x" * 100)
    assert sql(database, "SELECT usage_source, output_tokens FROM runs") == [("estimated", 100)]
    assert history.stats().estimated_runs == 1


def test_nothing_is_counted_on_the_applications_threads(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on its event loop nor on the writer's thread, where a long text would delay the commits of others."""
    seen: list[str] = []

    def noted(*given: Any) -> Any:
        seen.append(threading.current_thread().name)
        return estimate(*given)

    estimate = usage_estimate.estimate
    monkeypatch.setattr(usage_estimate, "estimate", noted)

    async def story() -> None:
        async with ChatHistoryCallback(database) as history:
            with LoopbackProvider() as provider:
                model = ChatOpenAI(
                    "gpt-4o-mini",
                    base_url=provider.base_url,
                    api_key="any",
                    callbacks=[history],
                    stream_usage=False,
                )
                async for _ in model.astream("Hi"):
                    pass
            await history.flush()

    asyncio.run(story())
    assert [name.rpartition("_")[0] for name in seen] == ["recorder-work"]
    assert sql(database, "SELECT usage_source FROM runs") == [("estimated",)]


def test_a_long_count_delays_no_commit(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the tokens of one run are counted, another run is stored."""
    counting, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        counting.set()
        assert go_on.wait(30)
        return estimate(*given)

    estimate = usage_estimate.estimate
    monkeypatch.setattr(usage_estimate, "estimate", slow)
    with ChatHistoryCallback(database) as history:
        record(history, reply="long")
        assert counting.wait(30)
        record(history, reply="other")
        history.flush().wait(30)
        assert sql(database, "SELECT count(*) FROM runs WHERE status = 'complete'") == [(2,)]
        assert history.stats().estimated_runs == 0
        go_on.set()
    assert history.stats().estimated_runs == 2


def test_an_estimate_that_fails_is_counted_and_logged_once(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Recording goes on, and the usage stays none."""

    def broken(*given: Any) -> Any:
        raise StoreError("damaged")

    monkeypatch.setattr(usage_estimate, "estimate", broken)
    with ChatHistoryCallback(database) as history:
        for _ in range(2):
            record(history)
    assert sql(database, USAGE) == [("none", None, None, None)] * 2
    assert history.stats().unestimated_runs == 2
    assert [each for each in caplog.messages if "could not be estimated" in each] == caplog.messages
    assert len(caplog.messages) == 1


def test_one_estimate_that_fails_costs_the_others_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are counted together, and each has its own error."""

    def sometimes(exchange: Any, *given: Any) -> Any:
        if exchange.generated == "odd":
            raise TypeError("unhashable")
        return estimate(exchange, *given)

    estimate = usage_estimate.estimate
    monkeypatch.setattr(usage_estimate, "estimate", sometimes)
    with ChatHistoryCallback(database) as history:
        for reply in ("odd", "even", "odd", "even"):
            record(history, reply)
    assert sql(database, "SELECT count(*) FROM runs WHERE usage_source = 'estimated'") == [(2,)]
    stats = history.stats()
    assert (stats.estimated_runs, stats.unestimated_runs) == (2, 2)


def test_more_runs_than_may_wait_end_without_an_estimate(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted; `recorder stats --cost --fill` estimates them."""
    monkeypatch.setattr(live_estimates, "_MOST_WAITING", 0)
    with ChatHistoryCallback(database) as history:
        record(history)
    assert history.stats().unestimated_runs == 1
    assert sql(database, "SELECT usage_source FROM runs") == [("none",)]


def test_a_recorder_that_is_closed_at_once_reports_no_error(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is stored. What has no estimate yet is counted."""
    history = ChatHistoryCallback(database)
    record(history)
    history.flush().wait()
    stats = history.close(0).wait()
    assert (stats.healthy, stats.last_error, caplog.messages) == (True, None, [])
    assert stats.estimated_runs + stats.unestimated_runs == 1


def test_a_run_that_is_given_up_is_counted_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if something else delays the end for longer."""
    counting, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        counting.set()
        assert go_on.wait(30)
        return estimate(*given)

    class SeveralLooks(Wait[None]):
        """Is done when the writer has looked some times."""

        looks = 0

        @property
        def done(self) -> bool:
            self.looks += 1
            return self.looks > 3

    class Late:
        """A listener that ends later than the estimates."""

        def begun(self, start: RunStart) -> None: ...
        def committed(self, parts: Sequence[Part]) -> None: ...
        def reset_in_child(self) -> None: ...
        def end(self) -> None:
            go_on.set()

        def finish(self, seconds_left: float) -> Wait[None]:
            return SeveralLooks()

    estimate = usage_estimate.estimate
    monkeypatch.setattr(usage_estimate, "estimate", slow)
    monkeypatch.setattr(live_estimates, "_AT_THE_END", 0.01)
    history = ChatHistoryCallback(database)
    history.recorder.listeners.add(Late())
    record(history)
    assert counting.wait(30)
    stats = history.close().wait()
    assert (stats.estimated_runs, stats.unestimated_runs) == (0, 1)


def test_a_store_of_ones_own_is_left_alone() -> None:
    """What cannot be read is not counted, and nothing is logged."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history:
        record(history)
    assert [seal.end.usage_source for seal in store.seals.values()] == ["none"]
    assert history.stats().unestimated_runs == 0
