"""Runs whose provider reports no usage get an estimate after their commit, off every event loop of the application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.core.waitable import Wait
from recorder.costs import live_estimates, usage_estimate
from recorder.costs.token_counts import rule_of_thumb
from recorder.errors import StoreError
from recorder.messages import HumanMessage
from recorder.models import ChatAnthropic, ChatOpenAI
from recorder.storage.batch import Part
from recorder.storage.rows import RunStart
from recorder.testing import Answer, LoopbackProvider, MemoryStore, anthropic_messages_frames
from tests.oracle import begin, finish, record, result, say, sql

USAGE = "SELECT usage_source, input_tokens, output_tokens, total_tokens FROM runs ORDER BY started_at"
ANSWER = "An answer of some words, 一些文字. " * 40


def test_a_silent_stream_is_estimated(database: str) -> None:
    """What was sent and what arrived, by the rule of thumb."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history, HumanMessage("A question"))
        say(history, run_id, [ANSWER])
        finish(history, run_id, ANSWER, finish_reason="stop")
    sent = 3 + 3 + rule_of_thumb("user") + rule_of_thumb("A question")
    made = rule_of_thumb(ANSWER)
    assert sql(database, USAGE) == [("estimated", sent, made, sent + made)]
    assert history.stats().estimated_runs == 1


def test_a_reported_usage_is_never_touched(database: str) -> None:
    """Also if it is odd."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, ["x" * 4_000])
        output = {"token_usage": {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}}
        history.on_llm_end(result("x" * 4_000, output=output), run_id=run_id)
    assert sql(database, USAGE) == [("provider", 0, 1, 1)]


def test_an_aborted_stream_is_estimated_by_what_arrived(database: str) -> None:
    """Reasoning and arguments of tools count as well as text."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        say(history, run_id, ["Half an ", "answer"])
        history.on_llm_error(asyncio.CancelledError(), run_id=run_id)
    [(source, _, made, _)] = sql(database, USAGE)
    assert (source, made) == ("estimated", rule_of_thumb("Half an answer"))


def test_a_request_that_failed_at_once_costs_nothing(database: str) -> None:
    """Nothing arrived, and no provider charges for an error."""
    with ChatHistoryCallback(database) as history:
        history.on_llm_error(ConnectionError("refused"), run_id=begin(history))
    assert sql(database, USAGE) == [("none", None, None, None)]


def test_a_cut_answer_of_anthropic_keeps_the_reported_input(database: str) -> None:
    """Its start counts the input; the output that it counts there is that of the first token."""
    words = [f"word{number} " for number in range(40)]
    answer = Answer(frames=anthropic_messages_frames(words), hang_after=30)
    with LoopbackProvider(answer) as provider, ChatHistoryCallback(database) as history:
        model = ChatAnthropic("claude-sonnet-4-5", base_url=provider.url, api_key="any", callbacks=[history])
        stream = model.stream("Hi")
        arrived = "".join(chunk.text for chunk, _ in zip(stream, range(20), strict=False))
        stream.close()  # type: ignore[attr-defined]
    [(source, sent, made, total)] = sql(database, USAGE)
    [(raw,)] = sql(database, "SELECT usage FROM runs")
    assert source == "estimated"
    assert f'"input_tokens":{sent}' in str(raw).replace(" ", "").replace("'", '"')
    assert made >= rule_of_thumb(arrived) > 1
    assert total == sent + made


def test_chains_and_tools_have_no_usage(database: str) -> None:
    """They are no calls of a model."""
    with ChatHistoryCallback(database) as history:
        record(history, reply="Hi")
    assert sql(database, "SELECT count(*) FROM runs WHERE usage_source = 'estimated'") == [(1,)]
    with ChatHistoryCallback(database, estimate_usage=False) as history:
        record(history, reply="Hi")
    assert sql(database, "SELECT count(*) FROM runs WHERE usage_source = 'none'") == [(1,)]


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


def test_more_runs_than_may_wait_end_without_an_estimate(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted; `recorder stats --cost --fill` estimates them."""
    monkeypatch.setattr(live_estimates, "_MOST_WAITING", 0)
    with ChatHistoryCallback(database) as history:
        record(history)
    assert history.stats().unestimated_runs == 1
    assert sql(database, "SELECT usage_source FROM runs") == [("none",)]


def test_a_store_of_ones_own_is_left_alone() -> None:
    """What cannot be read is not estimated, and nothing is logged."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history:
        record(history)
    assert [seal.end.usage_source for seal in store.seals.values()] == ["none"]
    assert history.stats().unestimated_runs == 0


def test_the_estimate_has_a_cost(database: str) -> None:
    """By the price of the model, as a reported usage has."""
    pytest.importorskip("genai_prices")
    with ChatHistoryCallback(database) as history:
        record(history, reply=ANSWER, metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o"})
    [(cost, made)] = sql(database, "SELECT output_cost, output_tokens FROM runs")
    assert cost == pytest.approx(made * 10e-6)


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
